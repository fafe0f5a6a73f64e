package holding

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// Unlock has the owner end the holding.
func (h *Holding) Unlock(ctx context.Context) error {
	h.Asked.Store(true)
	return h.lock.End(ctx, h)
}

// GiveBack ends the contexts, and passes the lock to the successor, or gives it back. It keeps the
// lease, and reports whether that can serve again, or, with withdraw, revokes a lease of its own.
func (h *Holding) GiveBack(ctx context.Context, withdraw bool) (reusable bool, err error) {
	h.leave()
	// Nothing is created under a lease that is gone.
	if !h.Lease.IsShared() && (withdraw || !h.Settled()) {
		return false, h.withdraw(ctx)
	}
	r := h.Release(ctx)
	reusable, err = h.outcome(ctx, r)
	if err != nil && r.Confirmed && !h.Lease.IsShared() {
		h.fence(ctx) // K may be there: somebody may have overwritten it, and kept its lease
	}
	return reusable, err
}

// GiveBackAll is GiveBack for holdings under one shared lease. No context is left of any when the
// first lock is given back.
func GiveBackAll(ctx context.Context, all []*Holding) (errs []error) {
	var g queue.Group
	for _, h := range all {
		h.leave()
		g = append(g, h.Contender)
	}
	for i, r := range g.Release(ctx) {
		_, err := all[i].outcome(ctx, r)
		errs = append(errs, err)
	}
	return errs
}

// outcome says what came of a release.
func (h *Holding) outcome(ctx context.Context, r queue.Released) (reusable bool, err error) {
	switch {
	case r.Reason == message.LeaseGone && errors.Is(h.Lease.Err(), ErrClosed):
		return false, nil // Close of the session has given it back
	case r.Reason != message.NotLost:
		if !r.Confirmed { // it was lost at the last moment, and all is there
			h.fence(ctx)
		}
		_, lost := h.lock.Public.Lost(h, r.Reason, nil)
		return false, lost
	case !r.Confirmed:
		return false, h.Unconfirmed(r.Err)
	}
	return true, nil
}

// Unconfirmed is the error of a release of which it is not known whether it was done, and why.
func (h *Holding) Unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", h.Place.Lock, ErrUnconfirmed, err)
}

// withdraw passes the lock to the successor, or gives it back by revoking the lease, which goes in
// any case. A read before it tells whether it was still ours.
func (h *Holding) withdraw(ctx context.Context) error {
	ctx, cancel := h.Lease.ToEnd(ctx, debts.Limit)
	defer cancel()
	var r queue.Released
	if h.KnowsNext() {
		r = h.Release(ctx)
	} else {
		r.Reason, r.Err = h.compare(ctx)
		r.Confirmed = r.Err == nil
	}
	_, lost := h.outcome(ctx, r)
	h.Abandon()
	unseen := errors.Is(lost, ErrUnconfirmed)
	err := h.revoke(ctx)
	switch {
	case unseen:
		h.lookWithoutLease(ctx)
		lost = nil // the revocation says more
	case r.Reason == message.PlaceLost:
		h.removeWithoutLease(ctx)
	}
	if err != nil {
		return h.Unconfirmed(err)
	}
	return lost
}

// compare reads how the lock was lost, if it was, in half of the time: the other half is for the
// revocation.
func (h *Holding) compare(ctx context.Context) (message.Reason, error) {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/2)
	defer cancel()
	return h.Compare(ctx)
}

// Drop removes what is left of a lock that was lost. Etcd may keep its lease for longer than it was
// valid: an outage, or a new leader, prolongs it.
func (h *Holding) Drop(ctx context.Context) {
	h.leave()
	if h.Lease.IsShared() && h.Lease.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, debts.Limit)
		defer cancel()
		h.Leave(ctx)
		return
	}
	h.Abandon()
	h.fence(ctx)
}

// Dismiss ends the holding of a session that is closed. Its lease goes. A Lock that waits is
// interrupted.
func (h *Holding) Dismiss() {
	if h.Token() == 0 {
		return
	}
	h.leave()
	h.Abandon()
	h.lock.Forget(h)
}

// GiveUp takes back the place of a holding that waits no more, also when ctx has ended, and the
// lock if it was granted meanwhile. What cannot be taken back in time runs out, or the session
// takes it back later.
func (h *Holding) GiveUp(ctx context.Context) {
	if h.Lease.IsShared() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit)
		defer cancel()
		h.Leave(ctx)
		return
	}
	if h.Created() > 0 {
		// The lease goes in any case; to leave first gives on what was granted meanwhile.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit/2)
		h.Leave(ctx)
		cancel()
	}
	h.Abandon()
	h.fence(ctx)
}

// Clear fences off what a holding may have left whose place is lost, so that another one can be
// taken. Without a lease of its own it has that done in the background, else it waits for etcd as
// long as it takes.
func (h *Holding) Clear(ctx context.Context) error {
	if h.Lease.IsShared() {
		h.Leave(ended)
		return nil
	}
	h.Abandon()
	if err := h.revoke(ctx); err != nil {
		h.fence(ctx)
		return err
	}
	if h.IsOverwritten() {
		h.removeWithoutLease(ctx)
	}
	return nil
}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// fence revokes the lease of a holding that is given up, also when ctx has ended, and thereby takes
// back its place, and the lock if it was granted meanwhile. What cannot be revoked runs out.
func (h *Holding) fence(ctx context.Context) {
	if retry.CheckOpen(h.Lease.Client()) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit)
	defer cancel()
	if err := h.revoke(ctx); err != nil {
		h.lock.Debts.OweLease(h.Lease)
		h.Say(slog.LevelWarn, "the place in line stays until its lease runs out", "key", h.Place.Lock, "cause", err)
	}
	switch {
	case h.IsOverwritten():
		h.removeWithoutLease(ctx)
	case h.Token() != 0: // nobody has looked since the lock was lost
		h.lookWithoutLease(ctx)
	}
}

func (h *Holding) revoke(ctx context.Context) error {
	return lease.Revoke(ctx, h.Lease.Client(), h.Lease.ID(), h.Lease.First())
}

// removeWithoutLease removes a place that an operator has written without our lease, which does not
// take it along. It is where ours was, and nobody else has a place of that name. Nothing but its
// absence is final: until then it stands in the way of all that come later.
func (h *Holding) removeWithoutLease(ctx context.Context) {
	err := h.RemoveWithoutLease(ctx)
	if err == nil {
		return
	}
	h.Say(slog.LevelWarn, "a place in line that was overwritten stays as yet", "key", h.Place.Lock, "place", h.Place.Key, "cause", err)
	h.lock.Debts.OweStaying(h.RemoveWithoutLease)
}

// lookWithoutLease does the same where nobody has seen that it was written: whoever may not look
// need not.
func (h *Holding) lookWithoutLease(ctx context.Context) {
	look := func(ctx context.Context) error {
		err := h.RemoveWithoutLease(ctx)
		if retry.IsDenied(err) {
			return nil
		}
		return err
	}
	if look(ctx) != nil {
		h.lock.Debts.OweStaying(look)
	}
}
