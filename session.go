package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/keepalive"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/watch"
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

	client *clientv3.Client
	only   *Lock // whose own session it is; nil: it is shared

	turn chan struct{} // holds one token for who may change the lease

	open  context.Context // ends with Close
	close context.CancelFunc

	debts *debts.Debts

	mu    sync.Mutex
	lease *lease.Lease
}

// NewSession returns a session without locks. Nothing is sent to etcd. Call Close when it is no
// longer needed. Which clients it refuses is said at [New].
func NewSession(client *clientv3.Client, ttl time.Duration) (*Session, error) {
	if err := errors.Join(checkClient(client), checkTTL(ttl)); err != nil {
		return nil, err
	}
	open, end := context.WithCancel(context.Background())
	return &Session{TTL: ttl, client: client, turn: make(chan struct{}, 1), debts: debts.New(client), open: open, close: end}, nil
}

// NewLock returns a lock of the session that is not held. Key and id are those of [New]. Its Close
// releases it and leaves the lease alone.
func (s *Session) NewLock(key, id string) (*Lock, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.only != nil {
		return nil, fmt.Errorf("the session is that of lock %q alone: NewSession makes one for several", s.only.key)
	}
	if err := checkNames(key, id); err != nil {
		return nil, err
	}
	return &Lock{
		Logger:  s.Logger,
		client:  s.client,
		session: s,
		key:     key,
		id:      id,
		turn:    make(chan struct{}, 1),
		runs:    make(chan struct{}, 1),
	}, nil
}

// isShared reports whether its lease is looked after for as long as the session lasts, and the
// locks only take their keys away.
func (s *Session) isShared() bool { return s.only == nil }

func (s *Session) timing() timing {
	return timing{TTL: s.TTL, Refresh: s.RefreshInterval, Grace: s.Grace, Connect: s.ConnectTimeout, Margin: s.Margin}
}

// Prepare grants the lease, so that the first Lock needs one round trip only. It fails with
// ErrNoAnswer if etcd does not answer within ConnectTimeout. Without need it does nothing.
func (s *Session) Prepare(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	if s.only != nil {
		return s.only.Prepare(ctx)
	}
	set, err := settings{timing: s.timing(), log: s.Logger}.complete()
	if err != nil {
		return err
	}
	_, err = s.prepare(ctx, set)
	return err
}

// prepare returns the lease. One that has not been renewed for long is renewed first, to see
// whether etcd answers.
func (s *Session) prepare(ctx context.Context, set settings) (*lease.Lease, error) {
	ls, err := s.present()
	if err != nil || ls.IsReady() {
		return ls, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, set.Connect, ErrNoAnswer)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-limited.Done(): // somebody else asks, and has no answer
		return nil, context.Cause(limited)
	}
	defer func() { <-s.turn }()
	if ls, err = s.present(); err != nil || ls.IsReady() {
		return ls, err
	}
	if ls != nil && ls.Err() == nil {
		if err = ls.RenewNow(limited); err == nil {
			return ls, nil
		}
		if ls.Err() == nil {
			return nil, err
		}
	}
	old := ls
	if ls, err = s.grantLease(ctx, set.timing); err != nil {
		if s.open.Err() != nil { // Close has paid already
			s.debts.PayNow(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	if old != nil { // a place under it would be granted the lock, and nobody serves it
		s.debts.OweLease(old)
	}
	err = s.adopt(ctx, ls, set)
	s.debts.PayNow(ctx)
	return ls, err
}

func (s *Session) present() (*lease.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Err() != nil {
		return nil, ErrClosed
	}
	return s.lease, nil
}

// adopt begins to look after a lease.
func (s *Session) adopt(ctx context.Context, ls *lease.Lease, set settings) error {
	s.mu.Lock()
	if s.open.Err() != nil {
		s.mu.Unlock()
		s.debts.OweLease(ls)
		s.debts.PayNow(context.WithoutCancel(ctx)) // which has ended with the session
		return ErrClosed
	}
	ls.Share(set.timing, set.log)
	old := s.lease
	s.lease = ls
	s.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return nil
}

// Close ends the session: it gives all locks back, ends the contexts of what is held, and leaves
// nothing in etcd. Lock calls that wait fail with ErrClosed. It fails with ErrUnconfirmed if that
// is not known when ctx is done, or when validity ends (or a second later); then the locks free
// themselves when the lease runs out. A ctx that is done, or is about to be, is given a second.
func (s *Session) Close(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	s.mu.Lock()
	ls := s.lease
	s.lease = nil
	s.close()
	s.mu.Unlock()
	if s.only != nil {
		return s.only.Close(ctx)
	}
	defer endIdle(s.client)
	ctx, done := debts.Allow(ctx)
	defer done()
	if ls == nil {
		return holding.Unconfirmed(s.debts.Pay(ctx))
	}
	for _, m := range ls.Retire(ErrClosed) {
		if h, ok := m.(*queue.Contender).User().(*holding.Holding); ok {
			h.Dismiss()
		}
	}
	ls.Close()
	s.debts.OweLease(ls)
	return holding.Unconfirmed(s.debts.Pay(ctx))
}

// endIdle ends the streams of a client that nobody needs.
func endIdle(client *clientv3.Client) {
	watch.EndIdle(client)
	keepalive.EndIdle(client)
}

// grantLease asks for a lease until etcd answers, at most for the time that the settings allow.
func (s *Session) grantLease(ctx context.Context, t timing) (*lease.Lease, error) {
	limited, cancel := context.WithTimeoutCause(ctx, t.Connect, fmt.Errorf("%w within %v", ErrNoAnswer, t.Connect))
	defer cancel()
	ls, err := lease.Grant(limited, s.client, t)
	var failed *lease.GrantError
	if errors.As(err, &failed) && failed.Owed != 0 {
		s.debts.OweGrant(failed.Owed, time.Second, 0)
	}
	if retry.IsNoSpace(err) {
		s.debts.PayNow(ctx)
	}
	return ls, err
}
