package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/holding"
)

// A Held is a lock as it is held: from the Lock or TryLock that got it until Unlock. What it
// answers is never about another holding, also when its Lock is locked again. The zero Held, and
// nil, hold nothing.
//
// Its methods may be called from any goroutine.
type Held struct{ h *holding.Holding }

// Context returns a context that is done when parent is, or when the lock is about to be lost: the
// session's Grace before validity ends, or as soon as it is known that the lock is lost otherwise.
// Its context.Cause is then a [*LostError]. After Unlock it is ErrNotHeld.
//
// Err asks the clock: a process that was stopped, and goes on, is told at once that the context is
// done. Its Done channel, and contexts derived from it, follow some milliseconds later. Right
// before a write that must not be late look at Remaining, or fence the write with Token or
// IsHolder.
//
// Each context is kept until its parent is done or the lock is given back: make one for a piece of
// work, and not one for each of its steps.
func (h *Held) Context(parent context.Context) context.Context {
	c := h.holding()
	if c == nil {
		ctx, cancel := context.WithCancelCause(parent)
		cancel(ErrNotHeld)
		return ctx
	}
	return c.Context(parent)
}

// Mode returns how the lock is held.
func (h *Held) Mode() Mode {
	if c := h.holding(); c != nil {
		return c.Place.Mode
	}
	return Exclusive
}

// Slot returns which of the slots is held, from 0 on; 0 in other modes than that of [Slots]. Which
// one it is says nothing: often it is that of the time before.
func (h *Held) Slot() int {
	if c := h.holding(); c != nil {
		return max(c.Seat()-1, 0)
	}
	return 0
}

// Token returns the fencing token: the ModRevision that the lock's key got when it became ours. Of
// a lock that is held [Shared] it is a revision at which it was, and of a semaphore that of the
// slot. Tokens grow from holder to holder, not among those who share the lock, and of [Slots]
// within each slot only. It says nothing of whether the lock is still held.
func (h *Held) Token() int64 {
	if c := h.holding(); c != nil {
		return c.Token()
	}
	return 0
}

// IsHolder returns the comparison for an etcd transaction that must only be applied while this
// holding lasts: our place in line is as it was when the lock became ours. Nobody else holds the
// lock while it is there, be it one of our locks or a Mutex of etcd's, but those who share it.
// After the lock has gone to somebody else etcd refuses such a transaction, however late it
// arrives. Once Unlock was called, or the lock is known to be broken, what it returns never holds.
//
// Of a semaphore it is the slot that is as it was: nobody else has that. Where an operator has
// deleted the place and not the slot, it does not see who has the lock in another mode.
func (h *Held) IsHolder() clientv3.Cmp { return holding.IsHolder(h.holding()) }

// Remaining returns for how long, from before the call, nobody else can hold the lock if no further
// renewal succeeds; 0 or less when it is not held, or others may hold it.
func (h *Held) Remaining() time.Duration {
	now := boottime.Now()
	c := h.holding()
	if c == nil || c.IsExpired() {
		return 0
	}
	return c.ValidUntil().Sub(now)
}

// Expired returns a channel that is closed as soon as the lock may belong to somebody else: when
// validity has ended without a renewal, when the lock was taken away by force, or after Unlock. The
// context that Context returns is done earlier wherever that is possible; what still works when
// Expired is closed must be ended, not asked to end.
func (h *Held) Expired() <-chan struct{} {
	if c := h.holding(); c != nil {
		return c.Expiry
	}
	return holding.Closed
}

// Lease returns the lease that the lock hangs on, 0 after Unlock. It may outlive the holding: after
// Unlock it serves the next Lock, and that of a session serves its other locks. What is bound to it
// goes no later than one TTL after the process, and may still be there when somebody else holds the
// lock. For what must not be, use IsHolder.
func (h *Held) Lease() clientv3.LeaseID {
	if c := h.holding(); c != nil && !c.HasLeft() {
		return c.Lease.ID()
	}
	return 0
}

// Refresh renews the lock at once, with the settings that it was locked with, and blocks until it
// is renewed or ctx is done. Nobody needs it to keep the lock. It fails with a *LostError if the
// lock was lost, and with ErrNotHeld after Unlock.
func (h *Held) Refresh(ctx context.Context) error {
	if c := h.holding(); c != nil {
		return c.Refresh(ctx)
	}
	return ErrNotHeld
}

// Unlock is [Lock.Unlock] for this holding: if it was unlocked before, it fails with ErrNotHeld,
// and touches no later one.
func (h *Held) Unlock(ctx context.Context) error {
	if c := h.holding(); c != nil {
		return c.Unlock(ctx)
	}
	return ErrNotHeld
}

func (h *Held) holding() *holding.Holding {
	if h == nil {
		return nil
	}
	return h.h
}
