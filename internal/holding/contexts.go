package holding

import (
	"context"
	"sync"
)

// contexts are those that were handed out, and what ends them.
type contexts struct {
	Expiry chan struct{} // closed when another contender may have the lock

	mu     sync.Mutex
	first  func() // closes what ends with the first of several locks; or nil
	left   bool   // the lock is given back, or that has begun
	lost   error
	handed map[*handed]struct{}
}

// A handed is one context that was handed out.
type handed struct {
	cancel context.CancelCauseFunc
	forget func() bool // stops the waiting for its end
}

// hand makes a context that lasts as long as both ctx and the lock.
func (c *contexts) hand(ctx context.Context) context.Context {
	held, cancel := context.WithCancelCause(ctx)
	one := &handed{cancel: cancel}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.lost != nil:
		cancel(c.lost)
		return held
	case c.left || isClosed(c.Expiry): // given back
		cancel(errUnlocked)
		return held
	}
	if c.handed == nil {
		c.handed = make(map[*handed]struct{})
	}
	c.handed[one] = struct{}{}
	one.forget = context.AfterFunc(held, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.handed, one)
	})
	return held
}

// lose ends the contexts because the lock is lost, or about to be. It reports whether it was not
// given back before.
func (c *contexts) lose(lost error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return false
	}
	c.lost = lost
	c.endLocked(lost)
	return true
}

// leave ends the contexts because the holder itself gives the lock back.
func (c *contexts) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	c.endLocked(errUnlocked)
	c.expireLocked()
}

func (c *contexts) endLocked(cause error) {
	for one := range c.handed {
		one.forget()
		one.cancel(cause)
	}
	c.handed = nil
}

// expire closes Expiry.
func (c *contexts) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expireLocked()
}

func (c *contexts) expireLocked() {
	if isClosed(c.Expiry) {
		return
	}
	close(c.Expiry)
	if c.first != nil {
		c.first()
	}
}

// FirstExpiry returns a channel that is closed when the first Expiry of several locks is.
func FirstExpiry(all []*Holding) <-chan struct{} {
	first := make(chan struct{})
	end := sync.OnceFunc(func() { close(first) })
	for _, h := range all {
		h.mu.Lock()
		if h.first = end; isClosed(h.Expiry) {
			end()
		}
		h.mu.Unlock()
	}
	return first
}

// HasLeft reports whether the lock was given back, or that has begun.
func (c *contexts) HasLeft() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

func (c *contexts) knownLoss() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Contexts returns how many contexts are remembered. It is for tests.
func (c *contexts) Contexts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.handed)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
