// Package session has the leases of a session: it grants them, looks after the one that its locks
// share, and revokes that when the session is closed.
//
// Lock order: turn, then mu. Whatever ends with its last user is ended without a mutex of the
// lease's held.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

// A Session has the lease that its locks share, or grants those of a single lock.
type Session struct {
	Client *clientv3.Client
	Debts  *debts.Debts
	Notes  holding.Notes
	Open   context.Context // ends with Close

	// IsShared says that the lease is looked after for as long as the session lasts, and the locks
	// only take their keys away.
	IsShared bool

	end    context.CancelFunc
	turn   chan struct{} // holds one token for who may change the lease
	closer chan struct{} // holds one token for Close

	mu     sync.Mutex
	lease  *lease.Lease
	others []*lease.Lease // those before it that were crowded; each ends after its last lock
	ending sync.WaitGroup // the ends of those
}

// New returns a session without a lease. Nothing is sent to etcd.
func New(client *clientv3.Client, isShared bool) *Session {
	open, end := context.WithCancel(context.Background())
	return &Session{Client: client, Debts: debts.New(client), Open: open, IsShared: isShared, end: end,
		turn: make(chan struct{}, 1), closer: make(chan struct{}, 1)}
}

// Prepare returns the lease that is shared, for a lock that asks for it, if one does. A lease that
// has not been renewed for long is renewed first, to see whether etcd answers. Behind that the
// lock's key is read: no other need be readable. One that is crowded is left to the locks that have
// it.
func (s *Session) Prepare(ctx context.Context, lock string, t lease.Timing, log *slog.Logger) (*lease.Lease, error) {
	ls, err := s.present()
	if err != nil || ls.IsReady() {
		return ls, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, t.Connect, holding.ErrNoAnswer)
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
	if ls != nil && ls.Err() == nil && !ls.IsCrowded() {
		if err = ls.RenewNow(limited, lock); err == nil {
			return ls, nil
		}
		if ls.Err() == nil {
			return nil, fmt.Errorf("renewing the session's lease: %w", err)
		}
	}
	if ls, err = s.Grant(ctx, t); err != nil {
		if s.Open.Err() != nil { // Close has paid already
			s.Debts.PayNow(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	err = s.adopt(ctx, ls, t, log)
	s.Debts.PayNow(ctx)
	return ls, err
}

// Err returns ErrClosed if the session is closed.
func (s *Session) Err() error {
	if s.Open.Err() != nil {
		return holding.ErrClosed
	}
	return nil
}

func (s *Session) present() (*lease.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease, s.Err()
}

// adopt begins to look after a lease.
func (s *Session) adopt(ctx context.Context, ls *lease.Lease, t lease.Timing, log *slog.Logger) error {
	s.mu.Lock()
	if err := s.Err(); err != nil {
		s.mu.Unlock()
		s.Debts.OweLease(ls)
		s.Debts.PayNow(context.WithoutCancel(ctx)) // which has ended with the session
		return err
	}
	ls.Share(t, log)
	old := s.lease
	s.lease = ls
	serves := old != nil && old.Err() == nil
	if serves {
		s.others = append(s.others, old)
	}
	s.mu.Unlock()
	switch {
	case serves:
		old.AfterLast(func() { s.endOther(old) })
	case old != nil: // a place under it would be granted the lock, and nobody serves it
		old.Close()
		s.Debts.OweLease(old)
	}
	return nil
}

// endOther ends a lease that was crowded and has no locks any more. What may still appear under it
// is fenced off.
func (s *Session) endOther(ls *lease.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err() != nil { // Close ends it
		return
	}
	s.others = slices.DeleteFunc(s.others, func(one *lease.Lease) bool { return one == ls })
	s.ending.Go(func() {
		ls.Retire(lease.ErrGone)
		ls.Close()
		s.Debts.OweLease(ls)
		gone := ls.ValidUntil().Add(ls.TTL())
		for s.Debts.PayNow(s.Open) != nil && gone.Until() > 0 && retry.Sleep(s.Open, retry.PauseRefused) {
		}
	})
}

// Grant asks for a lease until etcd answers, at most for the time that the settings allow.
func (s *Session) Grant(ctx context.Context, t lease.Timing) (*lease.Lease, error) {
	limited, cancel := context.WithTimeoutCause(ctx, t.Connect, fmt.Errorf("%w within %v", holding.ErrNoAnswer, t.Connect))
	defer cancel()
	ls, err := lease.Grant(limited, s.Client, t)
	var failed *lease.GrantError
	if errors.As(err, &failed) && failed.Owed != 0 {
		s.Debts.OweGrant(failed.Owed, t.TTL)
	}
	if retry.IsNoSpace(err) {
		s.Debts.PayNow(ctx)
	}
	return ls, err
}

// End is the part of Close that sends nothing. It returns the leases that were shared.
func (s *Session) End() []*lease.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.others
	if s.lease != nil {
		all = append(all, s.lease)
	}
	s.lease, s.others = nil, nil
	s.end()
	return all
}

// Close ends the session and what is held, and revokes the leases. Its error is ErrUnconfirmed. A
// second call waits for the first one, which has all to end: until then not all is owed. Releases
// that are under way come first.
func (s *Session) Close(ctx context.Context) error {
	defer s.EndIdle()
	asked := ctx
	ctx, done := debts.Allow(ctx)
	defer done()
	select {
	case s.closer <- struct{}{}:
		defer func() { <-s.closer }()
	case <-ctx.Done():
		return holding.Unconfirmed(context.Cause(ctx))
	}
	var held []*holding.Holding
	leases := s.End()
	for _, ls := range leases {
		for _, m := range ls.Retire(holding.ErrClosed) {
			if h, ok := m.(*queue.Contender).User().(*holding.Holding); ok {
				h.Dismiss()
				held = append(held, h)
			}
		}
		ls.StopRenewing() // so releases end when validity does
	}
	awaitReleases(asked, leases)
	for _, ls := range leases {
		ls.Close()
		s.Debts.OweLease(ls)
	}
	s.ending.Wait()
	err := s.Debts.Pay(ctx)
	if retry.IsDenied(err) {
		var all sync.WaitGroup
		for _, h := range held {
			all.Go(func() {
				ctx, done := lease.ToEnd(ctx, h.Lease.ValidUntil(), debts.Limit)
				defer done()
				queue.TakeAway(ctx, h.Contender)
			})
		}
		all.Wait()
	}
	return holding.Unconfirmed(err)
}

// awaitReleases waits for the releases that are under way: behind the revocation they cannot tell
// whether the lock was theirs until then. It does not wait for longer than debts.Limit, nor than
// for half of the time that there is, and not when ctx is done.
func awaitReleases(ctx context.Context, leases []*lease.Lease) {
	wait := debts.Limit
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for _, ls := range leases {
		if !ls.Releases.Await(ctx) {
			ls.Overtaken.Store(true)
		}
	}
}

// EndIdle ends the streams of the client that nobody needs.
func (s *Session) EndIdle() {
	watch.EndIdle(s.Client)
	keepalive.EndIdle(s.Client)
}
