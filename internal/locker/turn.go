package locker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/etcdlock/etcdlock/internal/holding"
)

// errClientClosed is what a Lock call that waits fails with when nothing more can be asked.
var errClientClosed = errors.New("the etcd client is closed, or its context has ended")

// interruptible returns a context for a wait that ends with Close of the lock, its session or the
// client, and when the timer rings, which is not set yet: then etcd has not answered. It is called
// by whoever has the turn.
func (l *Locker) interruptible(ctx context.Context) (_ context.Context, unanswered *time.Timer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	l.waits = cancel
	if l.closing > 0 {
		cancel(holding.ErrClosed)
	}
	l.mu.Unlock()
	unanswered = time.AfterFunc(math.MaxInt64, func() { cancel(holding.ErrNoAnswer) })
	ignoreClient := context.AfterFunc(l.session.Client.Ctx(), func() { cancel(errClientClosed) })
	ignoreSession := context.AfterFunc(l.session.Open, func() { cancel(holding.ErrClosed) })
	return ctx, unanswered, func() {
		unanswered.Stop()
		ignoreClient()
		ignoreSession()
		l.mu.Lock()
		l.waits = nil
		l.mu.Unlock()
		cancel(nil)
	}
}

// interrupt ends the calls of Lock that wait, also those that wait for their turn to, until resume
// is called.
func (l *Locker) interrupt() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing++
	if l.waits != nil {
		l.waits(holding.ErrClosed)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closing--
	}
}

// takeFor is take for a call of lock: who only tries does not wait for another call's turn for
// long.
func (l *Locker) takeFor(ctx context.Context, how Call, s Settings) error {
	if how.Try {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Connect, fmt.Errorf("lock %q: another call waits for it: %w", l.key, holding.ErrBusy))
		defer cancel()
	}
	return l.take(ctx, nil)
}

// take waits until this method may change the lock's state, until ctx is done, or until over is
// closed.
func (l *Locker) take(ctx context.Context, over <-chan struct{}) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-over:
		return holding.ErrNotHeld
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Locker) give() { <-l.turn }
