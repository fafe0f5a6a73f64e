package locker

import (
	"context"
	"errors"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/holding"
)

// Close releases the lock if it is held, and gives back the lease that the next Lock would use.
func (l *Locker) Close(ctx context.Context) error {
	defer l.session.EndIdle()
	defer l.interrupt()()
	ctx, done := debts.Allow(ctx)
	defer done()
	if err := l.take(ctx, nil); err != nil {
		return holding.Unconfirmed(err)
	}
	defer l.give()
	var err error
	if h := l.Current(); h != nil {
		err = l.finish(ctx, h, true)
	}
	if ls := l.atHand; ls != nil {
		l.atHand = nil
		l.session.Debts.OweLease(ls)
	}
	if !l.session.IsShared {
		// What was not confirmed of this lock has said so.
		if left := l.session.Debts.Pay(ctx); !errors.Is(err, holding.ErrUnconfirmed) {
			err = errors.Join(err, holding.Unconfirmed(left))
		}
	}
	return err
}

// End puts an end to a holding, unless that was done.
func (l *Locker) End(ctx context.Context, h *holding.Holding) error {
	ctx, done := debts.Allow(ctx)
	defer done()
	if err := l.takeToEnd(ctx, h); err != nil {
		return err
	}
	defer l.give()
	if l.Current() != h {
		return holding.ErrNotHeld
	}
	return l.finish(ctx, h, false)
}

// finish puts an end to the present holding. It is called by whoever has the turn.
func (l *Locker) finish(ctx context.Context, h *holding.Holding, withdraw bool) error {
	defer l.Forget(h)
	if lost := h.LostError(); lost != nil {
		l.drop(ctx, h)
		return lost
	}
	spare, err := h.GiveBack(ctx, withdraw)
	if spare != nil {
		l.atHand = spare
	}
	if h.Strays() || err != nil {
		l.under = nil
	}
	return err
}

// Forget lets go of a holding that has ended.
func (l *Locker) Forget(h *holding.Holding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == h {
		l.at = nil
		close(h.Over)
	}
}

// drop removes what is left of a lock that was lost.
func (l *Locker) drop(ctx context.Context, h *holding.Holding) {
	l.Forget(h)
	l.under = nil // what is on its way to remove the place must not hit the next one
	h.Drop(ctx)
}
