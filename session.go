package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/locker"
	"github.com/etcdlock/etcdlock/internal/session"
)

// A Session has a lease, and shares it, its renewal and one watch stream among any number of locks.
// Apart from that its locks are independent: each stands in its own line, two of them with one key
// keep each other out.
//
// What they do not have of their own is a lease to lose: when the session's is lost or cannot be
// renewed in time, all locks that are held are lost at once, and those that wait take new places at
// the end of their lines. Etcd 3.7.3 renews a lease only for a user who may write all keys under
// it: a key that may not be written any more costs all locks of its session.
//
// After several requests whose outcome stays unknown, as when connections break, the next locks get
// another lease. Those that have the one before keep it.
//
// Its methods may be called from any goroutine. The exported fields must not be written while one
// of them, or of its locks, runs. A change counts from the session's next lease on.
type Session struct {
	// TTL is how long the locks outlive a process that is gone: whole seconds, from 1 s to 24 h.
	// Etcd may grant more than was asked for (2 s at least, as it is usually set up).
	TTL time.Duration

	// RefreshInterval is the time between renewals: 10 ms or more. 0 means TTL/2, or less where
	// Grace leaves less room.
	RefreshInterval time.Duration

	// Grace is how long before the end of validity the contexts of what is held are done, so that
	// the work has this long to stop. 0 means TTL/4, at most 5 s.
	Grace time.Duration

	// ConnectTimeout bounds the wait for etcd's first answer. 0 means 5 s.
	ConnectTimeout time.Duration

	// Margin, if set, returns how much sooner than usual validity is to end, because the work takes
	// that long to end by force: 0 or more. At most an eighth of the TTL counts, and no more than
	// leaves room for the next renewal before Grace. It is called at each renewal, and counts from
	// that renewal on: the end of validity never moves back. It must not block.
	Margin func() time.Duration

	// Logger gets debug and warning messages, from a goroutine of its own. Nil means none. A Lock
	// that NewLock returns begins with it.
	Logger *slog.Logger

	only  *Lock // whose own session it is; nil: it is shared
	inner *session.Session
}

// NewSession returns a session without locks. Nothing is sent to etcd. Call Close when it is no
// longer needed. Which clients it refuses is said at [New].
func NewSession(client *clientv3.Client, ttl time.Duration) (*Session, error) {
	return newSession(client, ttl, true)
}

func newSession(client *clientv3.Client, ttl time.Duration, isShared bool) (*Session, error) {
	if err := errors.Join(session.CheckClient(client), locker.CheckTTL(ttl)); err != nil {
		return nil, err
	}
	return &Session{TTL: ttl, inner: session.New(client, isShared)}, nil
}

// NewLock returns a lock of the session that is not held. Key and id are those of [New]. Its Close
// releases it and leaves the lease alone.
func (s *Session) NewLock(key, id string) (*Lock, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.only != nil {
		return nil, s.notShared()
	}
	if err := locker.CheckNames(key, id); err != nil {
		return nil, err
	}
	return &Lock{
		Logger:  s.Logger,
		session: s,
		key:     key,
		id:      id,
		inner:   locker.New(s.inner, key, id, public),
		runs:    make(chan struct{}, 1),
	}, nil
}

func (s *Session) timing() lease.Timing {
	return lease.Timing{TTL: s.TTL, Refresh: s.RefreshInterval, Grace: s.Grace, Connect: s.ConnectTimeout, Margin: s.Margin}
}

func (s *Session) notShared() error {
	return fmt.Errorf("the session is that of lock %q alone: NewSession makes one for several", s.only.key)
}

// Prepare grants the lease, so that the first Lock needs one round trip only. It does nothing if
// the session has a lease that it can use. It fails with ErrNoAnswer if etcd does not answer within
// ConnectTimeout.
func (s *Session) Prepare(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.only != nil {
		return s.only.Prepare(ctx)
	}
	set, err := locker.Settings{Timing: s.timing(), Log: s.Logger}.Complete()
	if err != nil {
		return err
	}
	_, err = s.inner.Prepare(ctx, "", set.Timing, set.Log)
	return err
}

// Close ends the session: it gives all locks back, ends the contexts of what is held, and leaves
// nothing in etcd. Lock calls that wait fail with ErrClosed. An Unlock that is under way ends
// first, others fail with ErrNotHeld. Close fails with ErrUnconfirmed if it is not known whether
// all is given back when ctx is done, or when validity ends (or a second later); then the locks
// free themselves when the lease runs out. A ctx that is done, or is about to be, is given a
// second.
func (s *Session) Close(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.only != nil {
		s.inner.End()
		return s.only.Close(ctx)
	}
	return s.inner.Close(ctx)
}
