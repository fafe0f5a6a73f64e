// Package holding has one attempt to hold a lock, and what is held if it succeeds: the contexts
// that are handed out, the loss, the expiry, and the ways to give it back.
//
// Lock order: the mutex of queue.Contender before contexts.mu.
package holding

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// A Lock is what a holding knows of the lock that it belongs to.
type Lock struct {
	Owner
	Public *Public
	Debts  *debts.Debts // of its session, like the next
	Notes  *Notes
	OnWait func() // or nil
}

// An Owner has a holding, one at a time.
type Owner interface {
	// End gives the holding back, unless that was done.
	End(ctx context.Context, h *Holding) error
	// Forget is told that the holding has ended. It closes Over, once.
	Forget(h *Holding)
}

// A Holding is one attempt to hold a lock, and what is held if it succeeds.
type Holding struct {
	*queue.Contender
	contexts
	note note
	Held any // it, for the user

	Over  chan struct{} // closed when it has been unlocked
	Asked atomic.Bool   // it was asked to end, and not its lock or its session

	lock Lock
}

// New returns a holding that has not begun to wait for the lock.
func New(o queue.Options, lock Lock) *Holding {
	if o.Lease.IsShared() { // it was granted with settings of its own
		o.Timing = o.Lease.Timing()
	}
	h := &Holding{lock: lock, Over: make(chan struct{})}
	h.Expiry = make(chan struct{})
	h.Contender = queue.New(o, h)
	h.Held = lock.Public.Held(h)
	return h
}

// Owner returns what has the holding.
func (h *Holding) Owner() Owner { return h.lock.Owner }

// Say writes a message to the lock's logger, some time later.
func (h *Holding) Say(level slog.Level, message string, args ...any) {
	h.Lease.Notices.Log(h.Log, level, message, args...)
}

// Waiting is that of a queue.User, like the two methods that follow.
func (h *Holding) Waiting() {
	if h.lock.OnWait != nil {
		h.Lease.Notices.Post(h.lock.OnWait)
	}
}

// Lost ends the contexts that were handed out.
func (h *Holding) Lost(why message.Reason, cause error) {
	reason, lost := h.lock.Public.Lost(h, why, cause)
	if h.lose(lost) {
		h.Say(slog.LevelInfo, "lock lost", "key", h.Place.Lock, "reason", reason)
	}
}

// Expired closes Expiry. A lease of its own is not renewed any more: it must go with what is left
// of the lock. A shared one serves others.
func (h *Holding) Expired() {
	h.expire()
	h.remover().expired()
}

// IsExpired reports whether another contender may have the lock.
func (h *Holding) IsExpired() bool {
	return isClosed(h.Expiry) || h.ValidUntil().Until() <= 0
}

// A heldContext ends with the lock. It is what it wraps, and also asks the clock.
type heldContext struct {
	context.Context
	parent context.Context // may be that of another lock
	h      *Holding
}

// Err ends the context if it is time for that, and nobody has come to it yet.
func (c heldContext) Err() error {
	if c.Context.Err() == nil && c.parent.Err() == nil && c.h.ValidUntil().Until() <= c.h.Timing.Grace {
		c.h.OnGrace()
	}
	return c.Context.Err()
}

// Context makes a context that lasts as long as both ctx and the lock.
func (h *Holding) Context(ctx context.Context) context.Context {
	return heldContext{h.hand(ctx), ctx, h}
}

// LostError returns nil as long as the lock is held. The end of validity counts even before the
// watchdog has noticed it.
func (h *Holding) LostError() error {
	lost := h.knownLoss()
	if lost != nil || h.ValidUntil().Until() > 0 {
		return lost
	}
	h.OnGrace()
	if lost = h.knownLoss(); lost != nil {
		return lost
	}
	_, lost = h.lock.Public.Lost(h, message.Unrenewed, h.Why())
	return lost
}

// MustBeUnlocked is the error of a call that wants a lock that was lost and is still valid.
func (h *Holding) MustBeUnlocked() error {
	return fmt.Errorf("it was lost, and is to be unlocked first: %w", h.LostError())
}

// Again is what Lock does while the lock is held, with what renews it. If it is unlocked meanwhile,
// it is not held.
func (h *Holding) Again(ctx context.Context, refresh func(context.Context) error) (unlocked bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timing.Connect, ErrNoAnswer)
	defer cancel()
	err = refresh(ctx)
	return h.HasLeft() && errors.Is(err, ErrNotHeld), err
}

// Refresh renews a lock that is held. It ends when the lock is unlocked.
func (h *Holding) Refresh(ctx context.Context) error { return RefreshAll(ctx, []*Holding{h}) }

// RefreshAll is Refresh for locks under one lease.
func RefreshAll(ctx context.Context, all []*Holding) error {
	first := all[0]
	rpc, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-first.Expiry:
			cancel(ErrNotHeld)
		case <-rpc.Done():
		}
	}()
	var members []lease.Member
	for _, h := range all {
		members = append(members, h.Contender)
	}
	err := first.Lease.RenewNow(rpc, first.Place.Lock, members...)
	for _, h := range all {
		if err == nil {
			h.OnRenewed()
		}
		if lost := h.LostError(); lost != nil && !h.HasLeft() {
			return lost
		}
	}
	if err != nil {
		return fmt.Errorf("renewing lock %q: %w", first.Place.Lock, err)
	}
	if first.HasLeft() {
		return ErrNotHeld
	}
	return nil
}
