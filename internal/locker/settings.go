package locker

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// Settings are a Lock's fields and its Session's as they were when a method read them, with the
// defaults filled in.
type Settings struct {
	lease.Timing
	Command         string
	Mode            mode.Mode
	Log             *slog.Logger
	OnWait, OnRenew func() // or nil

	under []record.Under // locks that a set has already
}

// minRefresh is the shortest time between renewals: each is a write to etcd's leader and a read.
const minRefresh = 10 * time.Millisecond

// Complete checks settings and fills in the defaults.
func (s Settings) Complete() (Settings, error) {
	if err := errors.Join(s.Mode.Check(), checkCommand(s.Command), CheckTTL(s.TTL), checkTimes(s.Timing)); err != nil {
		return s, err
	}
	if s.Grace == 0 {
		s.Grace = validity.DefaultGrace(s.TTL)
	}
	if s.Refresh == 0 {
		s.Refresh = validity.DefaultRefresh(s.TTL, s.Grace)
	}
	if s.Connect == 0 {
		s.Connect = 5 * time.Second
	}
	if s.Log == nil {
		s.Log = silent
	}
	return s, validity.Check(s.TTL, s.Refresh, s.Grace)
}

// checkTimes refuses what would not be a time, or ask more of etcd than a renewal is worth.
func checkTimes(s lease.Timing) error {
	for _, one := range []struct {
		name string
		is   time.Duration
	}{{"RefreshInterval", s.Refresh}, {"Grace", s.Grace}, {"ConnectTimeout", s.Connect}} {
		if one.is < 0 {
			return fmt.Errorf("a %s of %v is negative (0 stands for the default)", one.name, one.is)
		}
	}
	if s.Refresh > 0 && s.Refresh < minRefresh {
		return fmt.Errorf("a RefreshInterval of %v is below %v, which is as often as a lease can be renewed (0 stands for the default)", s.Refresh, minRefresh)
	}
	return nil
}

var silent = slog.New(slog.DiscardHandler)

// CheckTTL refuses what cannot be a TTL.
func CheckTTL(ttl time.Duration) error {
	switch {
	case ttl < validity.MinTTL || ttl > validity.MaxTTL:
		return fmt.Errorf("a TTL of %v is not between %v and %v", ttl, validity.MinTTL, validity.MaxTTL)
	case ttl%time.Second != 0:
		return fmt.Errorf("a TTL of %v is not in whole seconds, etcd knows no others", ttl)
	}
	return nil
}
