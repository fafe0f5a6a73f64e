package etcdlock

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock/internal/locker"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Bounds of what a lock is called by.
const (
	MaxKeyBytes = 4096
	MaxIDBytes  = 256
)

func checkNames(key, id string) error {
	switch {
	case key == "":
		return errors.New("the lock's key is empty")
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("the lock's key has %d bytes, %d are the most", len(key), MaxKeyBytes)
	case wire.ReservedEnd(key) != "":
		return fmt.Errorf("the lock's key %q ends in %s, which is kept for another lock's line: choose another end", key, wire.ReservedEnd(key))
	case len(id) > MaxIDBytes:
		return fmt.Errorf("the holder's id has %d bytes, %d are the most", len(id), MaxIDBytes)
	case !utf8.ValidString(id):
		return fmt.Errorf("the holder's id %q is not UTF-8", id)
	}
	return nil
}

// check refuses what no constructor has made.
func (l *Lock) check() error {
	if l == nil || l.session == nil {
		return errors.New("the Lock was not made by New or NewLock")
	}
	return l.session.check()
}

func (s *Session) check() error {
	if s == nil || s.inner == nil {
		return errors.New("the Session was not made by NewSession")
	}
	return nil
}

func (l *Lock) settings() (locker.Settings, error) {
	if err := l.check(); err != nil {
		return locker.Settings{}, err
	}
	if err := l.Mode.check(); err != nil {
		return locker.Settings{}, err
	}
	s := locker.Settings{
		Timing:  l.session.timing(),
		Command: l.Command,
		Shares:  l.Mode == Shared,
		Log:     l.Logger,
		OnWait:  l.OnWait,
		OnRenew: l.OnRenew,
	}
	return s.Complete()
}
