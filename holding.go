package etcdlock

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A holding is one attempt to hold a lock, and what is held if it succeeds.
//
// Lock order: the mutex of queue.Contender before mu.
type holding struct {
	settings
	owner *Lock
	held  Held // it, for the user
	queue *queue.Contender
	place wire.Place
	lease *lease.Lease
	asked atomic.Bool // it was asked to end, and not its lock or its session

	expired chan struct{} // another contender may have the lock
	over    chan struct{} // it has been unlocked

	mu     sync.Mutex
	left   bool // it is given back, or that has begun
	lost   *LostError
	handed map[*handed]struct{} // the contexts
}

func newHolding(l *Lock, s settings, ls *lease.Lease, try bool) *holding {
	h := &holding{
		settings: s,
		owner:    l,
		place:    l.nextPlace(ls, s.command),
		lease:    ls,
		expired:  make(chan struct{}),
		over:     make(chan struct{}),
	}
	h.held.h = h
	if ls.IsShared() { // it was granted with settings of its own
		h.timing = ls.Timing()
	}
	h.queue = queue.New(queue.Options{
		Place:   h.place,
		Lease:   ls,
		Timing:  h.timing,
		Log:     h.log,
		OnRenew: h.onRenew,
		Try:     try,
		Lone:    l.alone,
	}, h)
	return h
}

// say writes a message to the lock's logger, some time later.
func (h *holding) say(level slog.Level, message string, args ...any) {
	h.lease.Notices.Log(h.log, level, message, args...)
}

// Waiting is that of a queue.User, like the two methods that follow.
func (h *holding) Waiting() {
	if h.onWait != nil {
		h.lease.Notices.Post(h.onWait)
	}
}

// Lost ends the contexts that were handed out.
func (h *holding) Lost(why protocol.Reason, cause error) {
	reason := Reason(why)
	if reason != Unrenewed {
		cause = nil
	}
	h.mu.Lock()
	if h.left {
		h.mu.Unlock()
		return
	}
	h.lost = h.loss(reason, cause)
	h.endHandedLocked(h.lost)
	h.mu.Unlock()
	h.say(slog.LevelInfo, "lock lost", "key", h.place.Lock, "reason", reason)
}

// Expired closes the channel of Held.Expired. A lease of its own is not renewed any more: it must
// go with what is left of the lock. A shared one serves others.
func (h *holding) Expired() {
	h.mu.Lock()
	h.expireLocked()
	h.mu.Unlock()
	if !h.lease.IsShared() {
		h.lease.StopRenewing()
	}
}

func (h *holding) expireLocked() {
	if !isClosed(h.expired) {
		close(h.expired)
	}
}

func (h *holding) loss(reason Reason, cause error) *LostError {
	return &LostError{Key: h.place.Lock, ID: h.place.ID, Token: h.queue.Token(), Reason: reason, Err: cause}
}

func (h *holding) isExpired() bool {
	return isClosed(h.expired) || h.queue.ValidUntil().Until() <= 0
}

func (h *holding) isLost() bool { return h.lostError() != nil }

// lostError returns nil as long as the lock is held. The end of validity counts even before the
// watchdog has noticed it.
func (h *holding) lostError() *LostError {
	lost := h.knownLoss()
	if lost != nil || h.queue.ValidUntil().Until() > 0 {
		return lost
	}
	h.queue.OnGrace()
	if lost = h.knownLoss(); lost != nil {
		return lost
	}
	return h.loss(Unrenewed, h.queue.Why())
}

func (h *holding) knownLoss() *LostError {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// released ends the contexts that were handed out because the holder itself gives the lock back.
func (h *holding) released() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = true
	h.endHandedLocked(errUnlocked)
	h.expireLocked()
}

// dismiss ends the holding of a session that is closed. Its lease goes. A Lock that waits is
// interrupted.
func (h *holding) dismiss() {
	if h.queue.Token() == 0 {
		return
	}
	h.released()
	h.queue.Abandon()
	h.owner.forget(h)
}

// hasLeft reports whether the lock was given back, or that has begun.
func (h *holding) hasLeft() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.left
}

// A handed is one context that was handed out.
type handed struct {
	cancel context.CancelCauseFunc
	forget func() bool // stops the waiting for its end
}

// A heldContext ends with the lock. It is what it wraps, and also asks the clock.
type heldContext struct {
	context.Context
	h *holding
}

// Err ends the context if it is time for that, and nobody has come to it yet.
func (c heldContext) Err() error {
	if c.Context.Err() == nil && c.h.queue.ValidUntil().Until() <= c.h.Grace {
		c.h.queue.OnGrace()
	}
	return c.Context.Err()
}

// hand makes a context that lasts as long as both ctx and the lock.
func (h *holding) hand(ctx context.Context) context.Context {
	held, cancel := context.WithCancelCause(ctx)
	one := &handed{cancel: cancel}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lost != nil:
		cancel(h.lost)
		return held
	case h.left || isClosed(h.expired): // given back
		cancel(errUnlocked)
		return held
	}
	if h.handed == nil {
		h.handed = make(map[*handed]struct{})
	}
	h.handed[one] = struct{}{}
	one.forget = context.AfterFunc(held, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.handed, one)
	})
	return heldContext{held, h}
}

func (h *holding) endHandedLocked(cause error) {
	for one := range h.handed {
		one.forget()
		one.cancel(cause)
	}
	h.handed = nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
