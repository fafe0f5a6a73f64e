package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/perclient"
	"github.com/etcdlock/etcdlock/internal/protocol"
)

// fenceLimit bounds what is done to clean up after the caller's context has ended.
const fenceLimit = debts.Limit

// Unlock releases the lock. Once is enough, however often Lock was called. The contexts of what was
// held are done before anybody else can get the lock. It goes to who is next in line at once, if
// that is known. The lease stays at hand for the next Lock, without keys, until it runs out.
//
// It fails with ErrNotHeld, and touches nobody's lock, if the lock is not held, also while Lock
// still waits: what ends that is its context. If the lock was lost, Unlock removes what is left of
// it and returns the *LostError. It returns at the latest when validity ends, or when ctx is done,
// and then with ErrUnconfirmed. A ctx that is done, or is about to be, is given a second.
func (l *Lock) Unlock(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	if c := l.current(); c != nil {
		return l.end(ctx, c)
	}
	return ErrNotHeld
}

// Close releases the lock if it is held, and leaves nothing in etcd, not even a lease (that of a
// session stays with it). A Lock call that waits fails with ErrClosed. The errors of Close are
// those of Unlock, but nothing to unlock is no error. The Lock can be used again.
func (l *Lock) Close(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	defer endIdle(l.client)
	defer l.interrupt()()
	ctx, done := withAllowance(ctx)
	defer done()
	if err := l.take(ctx, nil); err != nil {
		return unconfirmed(err)
	}
	defer l.give()
	way := (*holding).withdraw
	if l.session.isShared() {
		way = (*holding).release
	}
	var err error
	if c := l.current(); c != nil {
		err = l.finish(ctx, c, way)
	}
	if ls := l.atHand; ls != nil {
		l.atHand = nil
		l.session.debts.OweLease(ls)
	}
	if !l.session.isShared() {
		err = errors.Join(err, unconfirmed(l.session.debts.Pay(ctx)))
	}
	return err
}

// end puts an end to a holding, unless that was done.
func (l *Lock) end(ctx context.Context, h *holding) error {
	ctx, done := withAllowance(ctx)
	defer done()
	switch err := l.take(ctx, h.over); {
	case err == ErrNotHeld:
		return err
	case err != nil:
		return h.unconfirmed(err)
	}
	defer l.give()
	if l.current() != h {
		return ErrNotHeld
	}
	return l.finish(ctx, h, (*holding).release)
}

// finish puts an end to the present holding, in one of two ways. The way reports whether the lease
// can serve again. It is called by whoever has the turn.
func (l *Lock) finish(ctx context.Context, h *holding, way func(*holding, context.Context) (bool, error)) error {
	defer l.forget(h)
	if lost := h.lostError(); lost != nil {
		l.drop(ctx, h)
		return lost
	}
	h.released()
	if !h.queue.Settled() && !h.lease.IsShared() {
		way = (*holding).withdraw // nothing is created under a lease that is gone
	}
	reusable, err := way(h, ctx)
	switch {
	case h.lease.IsShared():
	case reusable:
		l.atHand = h.lease
	case errors.Is(err, ErrUnconfirmed):
		l.session.debts.OweLease(h.lease)
	}
	if h.queue.Strays() || !reusable {
		l.under = nil
	}
	return err
}

// withAllowance returns a context that is done when ctx is, but not within fenceLimit: what is to
// be given back is given back although the caller's time is over.
func withAllowance(ctx context.Context) (_ context.Context, done func()) {
	if ctx.Done() == nil {
		return ctx, func() {}
	}
	allowed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	begun := time.Now()
	later := time.AfterFunc(math.MaxInt64, func() { cancel(context.Cause(ctx)) })
	forget := context.AfterFunc(ctx, func() { later.Reset(fenceLimit - time.Since(begun)) })
	return allowed, func() {
		forget()
		later.Stop()
		cancel(nil)
	}
}

// forget makes h history.
func (l *Lock) forget(h *holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == h {
		l.at = nil
		close(h.over)
	}
}

// drop removes what is left of a lock that was lost. Etcd may keep its lease for longer than it was
// valid: an outage, or a new leader, prolongs it.
func (l *Lock) drop(ctx context.Context, h *holding) {
	l.forget(h)
	l.under = nil // what is on its way to remove the place must not hit the next one
	h.released()
	if h.lease.IsShared() && h.lease.Err() == nil {
		ctx, cancel := context.WithTimeout(ctx, fenceLimit)
		defer cancel()
		h.queue.Leave(ctx)
		return
	}
	h.queue.Abandon()
	h.fence(ctx)
}

// release passes the lock to the successor, or gives it back, with one transaction, and keeps the
// lease.
func (h *holding) release(ctx context.Context) (reusable bool, err error) {
	r := h.queue.Release(ctx)
	switch {
	case r.Reason == protocol.LeaseGone && errors.Is(h.lease.Err(), ErrClosed):
		return false, nil // Close of the session has given it back
	case r.Reason != protocol.NotLost:
		if !r.Confirmed { // it was lost at the last moment, and all is there
			h.fence(ctx)
		}
		return r.Confirmed, h.loss(Reason(r.Reason), nil)
	case !r.Confirmed:
		return false, h.unconfirmed(r.Err)
	}
	return true, nil
}

// fence revokes the lease of a holding that is given up, also when ctx has ended, and thereby takes
// back its place, and the lock if it was granted meanwhile. What cannot be revoked runs out.
func (h *holding) fence(ctx context.Context) {
	if perclient.IsClosed(h.lease.Client()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit)
	defer cancel()
	if err := lease.Revoke(ctx, h.lease.Client(), h.lease.ID(), h.lease.First()); err != nil {
		h.owner.session.debts.OweLease(h.lease)
		h.say(slog.LevelWarn, "the place in line stays until its lease runs out", "key", h.place.Lock, "cause", err)
	}
	h.removeDetached(ctx)
}

// removeDetached removes a place that an operator has written without our lease, which does not
// take it along. It is where ours was, and nobody else has a place of that name.
func (h *holding) removeDetached(ctx context.Context) {
	if h.queue.IsOverwritten() {
		h.removeWithoutLease(ctx)
	}
}

// removeWithoutLease does the same for a place of which it is known that it was written. Nothing
// but its absence is final: until then it stands in the way of all that come later.
func (h *holding) removeWithoutLease(ctx context.Context) {
	err := h.queue.RemoveWithoutLease(ctx)
	if err == nil {
		return
	}
	h.say(slog.LevelWarn, "a place in line that was overwritten stays as yet", "key", h.place.Lock, "place", h.place.Key, "cause", err)
	h.owner.session.debts.OweStaying(h.queue.RemoveWithoutLease)
}

// withdraw passes the lock to the successor, or gives it back by revoking the lease, which goes in
// any case. A read before it tells whether it was still ours.
func (h *holding) withdraw(ctx context.Context) (reusable bool, err error) {
	ctx, cancel := h.lease.ToEnd(ctx, fenceLimit)
	defer cancel()
	var lost error
	if h.queue.KnowsNext() {
		_, lost = h.release(ctx)
	} else if reason, err := h.queue.Compare(ctx); err != nil {
		lost = h.unconfirmed(err)
	} else if reason != protocol.NotLost {
		lost = h.loss(Reason(reason), nil)
	}
	h.queue.Abandon()
	unseen := errors.Is(lost, ErrUnconfirmed)
	taken := (*LostError)(nil)
	detached := unseen || errors.As(lost, &taken) && taken.Reason == PlaceLost
	if err := lease.Revoke(ctx, h.lease.Client(), h.lease.ID(), h.lease.First()); err != nil {
		if detached {
			h.owner.session.debts.OweStaying(h.queue.RemoveWithoutLease)
		}
		return false, h.unconfirmed(err)
	}
	if detached {
		h.removeWithoutLease(ctx)
	}
	if unseen { // the revocation says more
		lost = nil
	}
	return false, lost
}

func (h *holding) unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", h.place.Lock, ErrUnconfirmed, err)
}
