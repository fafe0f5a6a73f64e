package holding

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// ownLease is the remover of a holding that has a lease to itself: what is in doubt goes with it.
type ownLease struct{ *Holding }

func (h ownLease) giveBack(ctx context.Context, withdraw bool) (spare *lease.Lease, err error) {
	// Nothing is created under a lease that is gone.
	if withdraw || !h.Settled() {
		err = h.withdraw(ctx)
		if errors.Is(err, ErrUnconfirmed) {
			h.lock.Debts.OweLease(h.Lease)
		}
		return nil, err
	}
	r := h.Release(ctx)
	err = h.came(ctx, r)
	switch {
	case r.Reason != message.NotLost:
		if err != nil && r.Confirmed {
			h.fence(ctx) // K may be there: somebody may have overwritten it, and kept its lease
		}
	case err == nil && h.Lease.Places.Nobody():
		spare = h.Lease
	default:
		h.lock.Debts.OweLease(h.Lease)
	}
	return spare, err
}

// came says what came of a release. Where the lock was lost at the last moment all is there.
func (h ownLease) came(ctx context.Context, r queue.Released) error {
	err := h.outcome(r)
	if err != nil && r.Reason != message.NotLost && !r.Confirmed {
		h.fence(ctx)
	}
	return err
}

func (h ownLease) giveUp(ctx context.Context) {
	if h.Created() > 0 {
		// The lease goes in any case; to leave first gives on what was granted meanwhile.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit/2)
		h.Leave(ctx)
		cancel()
	}
	h.drop(ctx)
}

// drop does not trust etcd to have ended a lease that is not valid any more: an outage, or a new
// leader, prolongs it.
func (h ownLease) drop(ctx context.Context) {
	h.Abandon()
	h.fence(ctx)
}

// clear waits for etcd as long as it takes.
func (h ownLease) clear(ctx context.Context) error {
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

// expired ends the lease with what is left of the lock.
func (h ownLease) expired() { h.Lease.StopRenewing() }

// withdraw passes the lock to the successor, or gives it back by revoking the lease, which goes in
// any case. A read before it tells whether it was still ours.
func (h ownLease) withdraw(ctx context.Context) error {
	ctx, cancel := lease.ToEnd(ctx, h.Lease.ValidUntil(), debts.Limit)
	defer cancel()
	var r queue.Released
	if h.KnowsNext() {
		r = h.Release(ctx)
	} else {
		r = h.compare(ctx)
	}
	lost := h.came(ctx, r)
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
func (h ownLease) compare(ctx context.Context) queue.Released {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/2)
	defer cancel()
	return h.Compare(ctx)
}

// fence revokes the lease of a holding that is given up, also when ctx has ended, and thereby takes
// back its place, and the lock if it was granted meanwhile. What cannot be revoked runs out.
func (h ownLease) fence(ctx context.Context) {
	if retry.CheckOpen(h.Lease.Client()) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit)
	defer cancel()
	if err := h.revoke(ctx); err != nil {
		h.lock.Debts.OweLease(h.Lease)
		h.Say(slog.LevelWarn, "cannot take back the place in line; it goes with its lease", "key", h.Place.Lock, "cause", err)
	}
	switch {
	case h.IsOverwritten():
		h.removeWithoutLease(ctx)
	case h.Token() != 0: // nobody has looked since the lock was lost
		h.lookWithoutLease(ctx)
	}
}

func (h ownLease) revoke(ctx context.Context) error {
	err := lease.Revoke(ctx, h.Lease.Client(), h.Lease.ID(), h.Lease.First())
	if retry.IsDenied(err) {
		queue.TakeAway(ctx, h.Contender)
	}
	return err
}

// removeWithoutLease removes a place that an operator has written without our lease, which does not
// take it along. It is where ours was, and nobody else has a place of that name. Nothing but its
// absence is final: until then it stands in the way of all that come later.
func (h ownLease) removeWithoutLease(ctx context.Context) {
	err := h.RemoveWithoutLease(ctx)
	if err == nil {
		return
	}
	h.Say(slog.LevelWarn, "a place in line that was overwritten stays as yet", "key", h.Place.Lock, "place", h.Place.Key, "cause", err)
	h.lock.Debts.OweStaying(h.RemoveWithoutLease)
}

// lookWithoutLease does the same where nobody has seen that it was written: whoever may not look
// need not.
func (h ownLease) lookWithoutLease(ctx context.Context) {
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
