package locker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/session"
)

// errClientClosed is what a Lock call that waits fails with when nothing more can be asked.
var errClientClosed = errors.New("the etcd client is closed, or its context has ended")

// calls are those of the methods of a Locker, or of a Set.
type calls struct {
	session *session.Session
	name    string        // the key that a message names
	turn    chan struct{} // holds one token for the method that may change what is in etcd

	mu      sync.Mutex
	waits   context.CancelCauseFunc // ends a Lock that waits; nil: none does
	closing int                     // how many calls of Close are under way
}

func newCalls(s *session.Session, name string) calls {
	return calls{session: s, name: name, turn: make(chan struct{}, 1)}
}

// interruptible returns a context for a wait that ends with Close of the lock, its session or the
// client, and when the timer rings, which is not set yet: then etcd has not answered. It is called
// by whoever has the turn.
func (c *calls) interruptible(ctx context.Context) (_ context.Context, unanswered *time.Timer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	c.waits = cancel
	if c.closing > 0 {
		cancel(holding.ErrClosed)
	}
	c.mu.Unlock()
	unanswered = time.AfterFunc(math.MaxInt64, func() { cancel(holding.ErrNoAnswer) })
	ignoreClient := context.AfterFunc(c.session.Client.Ctx(), func() { cancel(errClientClosed) })
	ignoreSession := context.AfterFunc(c.session.Open, func() { cancel(holding.ErrClosed) })
	return ctx, unanswered, func() {
		unanswered.Stop()
		ignoreClient()
		ignoreSession()
		c.mu.Lock()
		c.waits = nil
		c.mu.Unlock()
		cancel(nil)
	}
}

// interrupt ends the calls of Lock that wait, also those that wait for their turn to, until resume
// is called.
func (c *calls) interrupt() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing++
	if c.waits != nil {
		c.waits(holding.ErrClosed)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closing--
	}
}

// takeFor is take for a call of lock: who only tries does not wait for another call's turn for
// long.
func (c *calls) takeFor(ctx context.Context, how Call, s Settings) error {
	if how.Try {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Connect, fmt.Errorf("lock %q: another call waits for it: %w", c.name, holding.ErrBusy))
		defer cancel()
	}
	return c.take(ctx, nil)
}

// take waits until this method may change the lock's state, until ctx is done, or until over is
// closed.
func (c *calls) take(ctx context.Context, over <-chan struct{}) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-over:
		return holding.ErrNotHeld
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeToEnd is take to end a holding.
func (c *calls) takeToEnd(ctx context.Context, h *holding.Holding) error {
	err := c.take(ctx, h.Over)
	if err == nil || err == holding.ErrNotHeld {
		return err
	}
	return h.Unconfirmed(err)
}

func (c *calls) give() { <-c.turn }
