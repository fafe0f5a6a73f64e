package etcdlock

import (
	"context"
	"errors"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/holding"
)

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
	defer l.session.inner.EndIdle()
	defer l.interrupt()()
	ctx, done := debts.Allow(ctx)
	defer done()
	if err := l.take(ctx, nil); err != nil {
		return holding.Unconfirmed(err)
	}
	defer l.give()
	var err error
	if c := l.current(); c != nil {
		err = l.finish(ctx, c, true)
	}
	if ls := l.atHand; ls != nil {
		l.atHand = nil
		l.session.inner.Debts.OweLease(ls)
	}
	if !l.session.inner.IsShared {
		err = errors.Join(err, holding.Unconfirmed(l.session.inner.Debts.Pay(ctx)))
	}
	return err
}

// end puts an end to a holding, unless that was done.
func (l *Lock) end(ctx context.Context, h *holding.Holding) error {
	ctx, done := debts.Allow(ctx)
	defer done()
	switch err := l.take(ctx, h.Over); {
	case err == ErrNotHeld:
		return err
	case err != nil:
		return h.Unconfirmed(err)
	}
	defer l.give()
	if l.current() != h {
		return ErrNotHeld
	}
	return l.finish(ctx, h, false)
}

// finish puts an end to the present holding. It is called by whoever has the turn.
func (l *Lock) finish(ctx context.Context, h *holding.Holding, withdraw bool) error {
	defer l.forget(h)
	if lost := h.LostError(); lost != nil {
		l.drop(ctx, h)
		return lost
	}
	reusable, err := h.GiveBack(ctx, withdraw)
	switch {
	case h.Lease.IsShared():
	case reusable:
		l.atHand = h.Lease
	case errors.Is(err, ErrUnconfirmed):
		l.session.inner.Debts.OweLease(h.Lease)
	}
	if h.Strays() || !reusable {
		l.under = nil
	}
	return err
}

// forget makes h history.
func (l *Lock) forget(h *holding.Holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == h {
		l.at = nil
		close(h.Over)
	}
}

// drop removes what is left of a lock that was lost.
func (l *Lock) drop(ctx context.Context, h *holding.Holding) {
	l.forget(h)
	l.under = nil // what is on its way to remove the place must not hit the next one
	h.Drop(ctx)
}

// An owner is a Lock as its holdings know it.
type owner struct{ *Lock }

func (o owner) End(ctx context.Context, h *holding.Holding) error { return o.end(ctx, h) }

func (o owner) Forget(h *holding.Holding) { o.forget(h) }
