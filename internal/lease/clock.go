package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// A clock knows for how long a lease may be relied on.
type clock struct {
	margin func() time.Duration // beyond the usual one; nil: none
	phase  float64              // when in the usual time the first renewal comes
	ring   chan struct{}        // makes the watchdog look at the clock

	mu       sync.Mutex
	most     time.Duration    // that margin can be
	granted  boottime.Instant // when the grant was sent
	sent     boottime.Instant // when the last counted grant or renewal was sent
	sooner   time.Duration    // by which the usual margin was exceeded then
	valid    boottime.Instant // the end of validity
	revision int64            // the newest seen
	lastErr  error            // of the last failed renewal since the last counted one
}

func newClock(granted boottime.Instant, margin func() time.Duration) clock {
	return clock{margin: margin, phase: rand.Float64(), granted: granted, ring: make(chan struct{}, 1)}
}

// ValidUntil returns the instant up to which nobody else can get what the lease holds.
func (c *clock) ValidUntil() boottime.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.valid
}

// LastError returns why the lease was not renewed since the last renewal that counts.
func (c *clock) LastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastErr
}

// Ring makes the watchdog look at the clock.
func (c *clock) Ring() {
	select {
	case c.ring <- struct{}{}:
	default:
	}
}

func (c *clock) newest() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.revision
}

// bound bounds the margin by what the timing leaves room for.
func (c *clock) bound(t Timing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most = validity.MaxExtra(t.TTL, t.Refresh, t.Grace)
}

// wholeMargin returns the part of the TTL that was not relied on at the last grant or renewal that
// counts.
func (c *clock) wholeMargin(ttl time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return validity.Margin(ttl) + c.sooner
}

// renewAt returns when the lease is to be renewed. If validity ends sooner than usual, the renewal
// is due as much sooner. The first one comes up to half of the time sooner, so that leases that
// were granted together are not renewed together.
func (c *clock) renewAt(refresh time.Duration) boottime.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	after := max(refresh-c.sooner, refresh/2)
	if c.sent == c.granted {
		after -= time.Duration(c.phase * float64(after) / 2)
	}
	return c.sent.Add(after)
}

// count takes note of a grant or renewal that counts. The end of validity never moves back.
func (c *clock) count(sent boottime.Instant, ttl time.Duration) {
	sooner := time.Duration(0)
	if c.margin != nil {
		sooner = max(c.margin(), 0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sooner = min(sooner, c.most)
	c.sent, c.sooner, c.lastErr = max(c.sent, sent), sooner, nil
	c.valid = max(c.valid, c.sent.Add(ttl-validity.Margin(ttl)-sooner))
	c.Ring()
}

// noting keeps the error of a try for the message of a loss, and returns it. That the time ran out
// never replaces another error.
func (c *clock) noting(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastErr == nil || !errors.Is(err, context.DeadlineExceeded) {
		c.lastErr = err
	}
	return err
}

// errOver is the cause of a context that ends with validity.
var errOver = errors.New("validity has ended")

// WhileValid returns ctx until validity ends.
func (c *clock) WhileValid(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, time.Now().Add(c.ValidUntil().Until()), errOver)
}

// ToEnd returns ctx until the validity of a lease ends, and for some time at least: etcd may keep
// it for longer.
func ToEnd(ctx context.Context, end boottime.Instant, least time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, max(end.Until(), least), errOver)
}
