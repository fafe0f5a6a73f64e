package etcdlock

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock/internal/place"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// Bounds of what a lock is called by.
const (
	MaxKeyBytes = 4096
	MaxIDBytes  = 256
)

// settings are a Lock's fields as they were when a method read them, with the defaults filled in.
type settings struct {
	timing
	command         string
	log             *slog.Logger
	onWait, onRenew func() // or nil
}

// timing is the part of the settings that the locks of a session have in common.
type timing struct {
	ttl, refresh, grace, connect time.Duration
	margin                       func() time.Duration // or nil
}

func checkNames(key, id string) error {
	switch {
	case key == "":
		return errors.New("the lock's key is empty")
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("the lock's key has %d bytes, %d are the most", len(key), MaxKeyBytes)
	case place.IsTail(key):
		return fmt.Errorf("the lock's key %q ends in what names the end of another lock's line: choose another end", key)
	case len(id) > MaxIDBytes:
		return fmt.Errorf("the holder's id has %d bytes, %d are the most", len(id), MaxIDBytes)
	case !utf8.ValidString(id):
		return fmt.Errorf("the holder's id %q is not UTF-8", id)
	}
	return nil
}

func checkTTL(ttl time.Duration) error {
	switch {
	case ttl < validity.MinTTL || ttl > validity.MaxTTL:
		return fmt.Errorf("a TTL of %v is not between %v and %v", ttl, validity.MinTTL, validity.MaxTTL)
	case ttl%time.Second != 0:
		return fmt.Errorf("a TTL of %v is not in whole seconds, etcd knows no others", ttl)
	}
	return nil
}

func (l *Lock) settings() (settings, error) {
	s := settings{
		timing:  timing{l.TTL, l.RefreshInterval, l.Grace, l.ConnectTimeout, l.Margin},
		command: l.Command,
		log:     l.Logger,
		onWait:  l.OnWait,
		onRenew: l.OnRenew,
	}
	if l.session != nil {
		s.timing = l.session.timing()
	}
	return s.complete()
}

// complete checks settings and fills in the defaults.
func (s settings) complete() (settings, error) {
	if err := checkTTL(s.ttl); err != nil {
		return settings{}, err
	}
	if s.grace == 0 {
		s.grace = validity.DefaultGrace(s.ttl)
	}
	if s.refresh == 0 {
		s.refresh = validity.DefaultRefresh(s.ttl, s.grace)
	}
	if s.connect == 0 {
		s.connect = 5 * time.Second
	}
	if s.log == nil {
		s.log = silent
	}
	return s, validity.Check(s.ttl, s.refresh, s.grace)
}

var silent = slog.New(slog.DiscardHandler)
