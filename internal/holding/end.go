package holding

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// Unlock has the owner end the holding.
func (h *Holding) Unlock(ctx context.Context) error {
	h.Asked.Store(true)
	return h.lock.End(ctx, h)
}

// A remover takes back what a holding has in etcd.
type remover interface {
	// giveBack passes the lock to the successor, or gives it back, and returns a lease that can
	// serve again. With withdraw a lease of its own goes.
	giveBack(ctx context.Context, withdraw bool) (spare *lease.Lease, err error)
	// giveUp takes back a place that waits no more, also when ctx has ended, and the lock if it was
	// granted meanwhile. What cannot be taken back in time runs out, or is taken back later.
	giveUp(ctx context.Context)
	// drop removes what is left of a lock that was lost.
	drop(ctx context.Context)
	// clear fences off what may be left of a lost place, so that another one can be taken.
	clear(ctx context.Context) error
	// expired is told that another contender may have the lock.
	expired()
}

// remover returns the one for the kind of lease that the holding has.
func (h *Holding) remover() remover {
	if h.Lease.IsShared() {
		return sharedLease{h}
	}
	return ownLease{h}
}

// GiveBack ends the contexts, and passes the lock to the successor, or gives it back. It returns a
// lease that can serve again. With withdraw a lease of its own is revoked.
func (h *Holding) GiveBack(ctx context.Context, withdraw bool) (spare *lease.Lease, err error) {
	h.leave()
	if withdraw && !h.Lease.IsShared() {
		h.endNote() // the lease takes along what is there
	} else {
		defer eraseNotes(ctx, h)()
	}
	return h.remover().giveBack(ctx, withdraw)
}

// GiveBackAll is GiveBack for holdings under one shared lease. No context is left of any when the
// first lock is given back.
func GiveBackAll(ctx context.Context, all []*Holding) (errs []error) {
	var g queue.Group
	for _, h := range all {
		h.leave()
		g = append(g, h.Contender)
	}
	defer eraseNotes(ctx, all...)()
	for i, r := range g.Release(ctx) {
		errs = append(errs, all[i].outcome(r))
	}
	return errs
}

// outcome says what came of a release.
func (h *Holding) outcome(r queue.Released) error {
	switch {
	case r.Abandoned && errors.Is(h.Lease.Err(), ErrClosed):
		return ErrNotHeld // Close of the session has ended it first
	case r.Reason != message.NotLost && r.Reason != message.HistoryLost && r.Cause == nil && r.Overtaken:
		return h.Unconfirmed(errOvertaken)
	case r.Reason != message.NotLost:
		_, lost := h.lock.Public.Lost(h, r.Reason, r.Cause)
		return lost
	case !r.Confirmed:
		return h.Unconfirmed(r.Err)
	}
	return nil
}

// Unconfirmed is the error of a release of which it is not known whether it was done, and why.
func (h *Holding) Unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", h.Place.Lock, ErrUnconfirmed, err)
}

// Drop ends the contexts, and removes what is left of a lock that was lost.
func (h *Holding) Drop(ctx context.Context) {
	h.leave()
	defer eraseNotes(ctx, h)()
	h.remover().drop(ctx)
}

// Dismiss ends the holding of a session that is closed. Its lease goes. A Lock that waits is
// interrupted.
func (h *Holding) Dismiss() {
	if h.Token() == 0 {
		return
	}
	h.leave()
	h.endNote()
	h.Abandon()
	h.lock.Forget(h)
}

// GiveUp takes back the place of a holding that waits no more, also when ctx has ended, and the
// lock if it was granted meanwhile. What cannot be taken back in time runs out, or the session
// takes it back later.
func (h *Holding) GiveUp(ctx context.Context) {
	defer eraseNotes(ctx, h)()
	h.remover().giveUp(ctx)
}

// Clear fences off what a holding may have left whose place is lost, so that another one can be
// taken. Without a lease of its own it has that done in the background, else it waits for etcd as
// long as it takes.
func (h *Holding) Clear(ctx context.Context) error { return h.remover().clear(ctx) }
