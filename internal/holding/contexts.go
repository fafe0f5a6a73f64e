package holding

import "context"

// A handed is one context that was handed out.
type handed struct {
	cancel context.CancelCauseFunc
	forget func() bool // stops the waiting for its end
}

// A heldContext ends with the lock. It is what it wraps, and also asks the clock.
type heldContext struct {
	context.Context
	h *Holding
}

// Err ends the context if it is time for that, and nobody has come to it yet.
func (c heldContext) Err() error {
	if c.Context.Err() == nil && c.h.ValidUntil().Until() <= c.h.Timing.Grace {
		c.h.OnGrace()
	}
	return c.Context.Err()
}

// Context makes a context that lasts as long as both ctx and the lock.
func (h *Holding) Context(ctx context.Context) context.Context {
	held, cancel := context.WithCancelCause(ctx)
	one := &handed{cancel: cancel}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lost != nil:
		cancel(h.lost)
		return held
	case h.left || isClosed(h.Expiry): // given back
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

func (h *Holding) endContextsLocked(cause error) {
	for one := range h.handed {
		one.forget()
		one.cancel(cause)
	}
	h.handed = nil
}

// Contexts returns how many contexts are remembered. It is for tests.
func (h *Holding) Contexts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.handed)
}
