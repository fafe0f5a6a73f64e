package etcdlock

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/locker"
	"github.com/etcdlock/etcdlock/internal/validity"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Bounds of what a lock is called by.
const (
	MaxKeyBytes = 4096
	MaxIDBytes  = 256
)

// minRefresh is the shortest time between renewals: each is a write to etcd's leader and a read.
const minRefresh = 10 * time.Millisecond

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

func checkTTL(ttl time.Duration) error {
	switch {
	case ttl < validity.MinTTL || ttl > validity.MaxTTL:
		return fmt.Errorf("a TTL of %v is not between %v and %v", ttl, validity.MinTTL, validity.MaxTTL)
	case ttl%time.Second != 0:
		return fmt.Errorf("a TTL of %v is not in whole seconds, etcd knows no others", ttl)
	}
	return nil
}

// checkClient refuses a client that would not see the same keys as a lock, which asks etcd itself.
func checkClient(client *clientv3.Client) error {
	if client == nil {
		return errors.New("the etcd client is nil")
	}
	for _, part := range []struct {
		name      string
		is, plain any
	}{
		{"KV", client.KV, clientv3.NewKVFromKVClient(nil, nil)},
		{"Watcher", client.Watcher, clientv3.NewWatchFromWatchClient(nil, nil)},
		{"Lease", client.Lease, clientv3.NewLeaseFromLeaseClient(nil, nil, 0)},
	} {
		switch {
		case part.is == nil:
			return errors.New("the etcd client was not made by clientv3.New")
		case reflect.TypeOf(part.is) != reflect.TypeOf(part.plain):
			return fmt.Errorf("the etcd client's %s was replaced by a %T, as etcd's namespace package does it, and would not see "+
				"the keys that the lock writes: pass the client as clientv3.New returned it, and put a prefix into the lock's key", part.name, part.is)
		}
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
	return complete(locker.Settings{Timing: l.session.timing(), Command: l.Command, Log: l.Logger, OnWait: l.OnWait, OnRenew: l.OnRenew})
}

// complete checks settings and fills in the defaults.
func complete(s locker.Settings) (locker.Settings, error) {
	if err := errors.Join(checkTTL(s.TTL), checkTimes(s.Timing)); err != nil {
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
