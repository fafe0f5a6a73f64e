package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Session shares one lease, one renewal and one watch stream among any number of locks. Apart from that its locks are
// independent: each stands in its own line, two of them with one key keep each other out.
//
// What they do not have of their own is a lease to lose: when the session's is lost or cannot be renewed in time, all locks that are held are
// lost at once, and those that wait take new places at the end of their lines.
//
// Its methods may be called from any goroutine. The exported fields are read when the session needs a lease: by Prepare, or by the first Lock.
type Session struct {
	// TTL is how long the locks outlive a process that is gone, see [Lock.TTL].
	TTL time.Duration

	// RefreshInterval, Grace and ConnectTimeout are what they are for a Lock, and count for all locks of the session.
	RefreshInterval, Grace, ConnectTimeout time.Duration

	// Logger gets debug and warning messages. Nil means none. A Lock of the session begins with it.
	Logger *slog.Logger

	client *clientv3.Client

	turn chan struct{} // holds one token for who may change the lease

	mu     sync.Mutex
	lease  *lease
	closed bool
}

// NewSession returns a session without locks. Nothing is sent to etcd. Call Close when it is no longer needed.
func NewSession(client *clientv3.Client, ttl time.Duration) (*Session, error) {
	if client == nil {
		return nil, errors.New("the etcd client is nil")
	}
	if err := checkTTL(ttl); err != nil {
		return nil, err
	}
	return &Session{TTL: ttl, client: client, turn: make(chan struct{}, 1)}, nil
}

// New returns a lock of the session that is not held. It is like [New]. The lock's TTL, RefreshInterval, Grace and ConnectTimeout are those of
// the session, and what is written to its fields of these names has no effect. Its Close releases it and leaves the lease alone.
func (s *Session) New(key, id string) (*Lock, error) {
	l, err := New(s.client, key, id, s.TTL)
	if err != nil {
		return nil, err
	}
	l.session, l.Logger = s, s.Logger
	return l, nil
}

func (s *Session) timing() timing {
	return timing{ttl: s.TTL, refresh: s.RefreshInterval, grace: s.Grace, connect: s.ConnectTimeout}
}

// Prepare grants the lease, so that the first Lock needs one round trip only. It fails with ErrNoAnswer if etcd does not answer within
// ConnectTimeout. Without need it does nothing.
func (s *Session) Prepare(ctx context.Context) error {
	set, err := settings{timing: s.timing(), log: s.Logger}.complete()
	if err != nil {
		return err
	}
	_, err = s.prepare(ctx, set)
	return err
}

// prepare returns the lease. One that has not been renewed for long is renewed first, to see whether etcd answers.
func (s *Session) prepare(ctx context.Context, set settings) (*lease, error) {
	ls, err := s.present()
	if err != nil || ls.isReady() {
		return ls, err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	if ls, err = s.present(); err != nil || ls.isReady() {
		return ls, err
	}
	if ls != nil && ls.gone() == nil {
		limited, cancel := context.WithTimeoutCause(ctx, set.connect, ErrNoAnswer)
		defer cancel()
		if err = ls.renewNow(limited); err == nil {
			return ls, nil
		}
		if ls.gone() == nil {
			return nil, err
		}
	}
	if ls, err = grantLease(ctx, s.client, set.timing); err != nil {
		return nil, err
	}
	return ls, s.adopt(ctx, ls, set)
}

// isReady reports whether a session's lease can serve without more ado.
func (l *lease) isReady() bool {
	return l != nil && l.gone() == nil && l.validUntil().Until() > l.grace+2*l.first
}

func (s *Session) present() (*lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrSessionClosed
	}
	return s.lease, nil
}

// adopt begins to look after a lease.
func (s *Session) adopt(ctx context.Context, ls *lease, set settings) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(ErrSessionClosed, revoke(ctx, s.client, ls.id, ls.first))
	}
	ls.share(upkeep{set.refresh, set.grace, set.log})
	old := s.lease
	s.lease = ls
	s.mu.Unlock()
	if old != nil {
		old.halt()
	}
	return nil
}

// Close ends the session: it gives all locks back, ends the contexts that Lock returned, and leaves nothing in etcd. Lock calls that wait
// fail with ErrSessionClosed. It fails with ErrUnconfirmed if that is not known when ctx is done, or when validity ends; then the locks free
// themselves when the lease runs out.
func (s *Session) Close(ctx context.Context) error {
	s.mu.Lock()
	ls := s.lease
	s.lease, s.closed = nil, true
	s.mu.Unlock()
	defer endIdle(s.client)
	if ls == nil {
		return nil
	}
	for _, c := range ls.retire(ErrSessionClosed) {
		c.dismiss()
	}
	ls.halt()
	if ls.validUntil().Until() <= 0 {
		return nil
	}
	ctx, cancel := ls.whileValid(ctx)
	defer cancel()
	if err := revoke(ctx, s.client, ls.id, ls.first); err != nil {
		return errors.Join(ErrUnconfirmed, err)
	}
	return nil
}
