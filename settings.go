package etcdlock

import (
	"errors"

	"github.com/etcdlock/etcdlock/internal/locker"
)

// Bounds of what a lock is called by.
const (
	MaxKeyBytes = locker.MaxKeyBytes
	MaxIDBytes  = locker.MaxIDBytes
)

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
	return locker.Settings{Timing: l.session.timing(), Command: l.Command, Mode: l.Mode, Log: l.Logger, OnWait: l.OnWait, OnRenew: l.OnRenew}.Complete()
}
