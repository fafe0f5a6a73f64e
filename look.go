package etcdlock

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// stateRead shows whether a contender is what it believes to be.
func (c *contender) stateRead() *pb.TxnRequest {
	return wire.StateRead(wire.StateOps(c.key, c.place.Key, ""))
}

// StateRead returns what reads the contender's state: K and its place, and what stands in its way,
// if anything does. Apply draws conclusions from the answers from the n-th on.
func (c *contender) StateRead() (ops []*pb.RequestOp, apply func(resp *answer, n int)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line.create <= 0 {
		return nil, nil
	}
	ahead := ""
	if c.token.Load() == 0 && !c.line.ahead.gone {
		ahead = c.line.ahead.key
	}
	return wire.StateOps(c.key, c.place.Key, ahead), func(resp *answer, n int) { c.apply(resp, n, ahead) }
}

func (c *contender) apply(resp *answer, n int, ahead string) {
	state := wire.StateAt(resp, n)
	c.mu.Lock()
	// An answer may come after the place or the token, to a read from before it.
	if c.left || c.line.create <= 0 || resp.Header.Revision < max(c.line.create, c.token.Load()) {
		c.mu.Unlock()
		return
	}
	waits := c.token.Load() == 0
	if ahead != "" {
		c.line.readAhead(ahead, state.Key, wire.Got(resp, n+2))
	}
	if waits {
		c.line.read(state)
	}
	c.mu.Unlock()
	c.blind.Store(0)
	if waits {
		c.wake()
	} else if reason := c.whatIsLost(state); reason != 0 {
		c.lose(reason, nil)
	}
}

// OnUnreadable is told that etcd does not let us read the contender's state. If that lasts, its
// validity ends when it would have ended without a further renewal: a session's lease is renewed
// for others.
func (c *contender) OnUnreadable(err error) {
	c.mu.Lock()
	c.unreadable = err
	c.mu.Unlock()
	end := c.lease.ValidUntil()
	if c.blind.CompareAndSwap(0, int64(end)) {
		c.lease.Go(func(ctx context.Context) { c.watchBlind(ctx, end) })
	}
}

// watchBlind does for a contender that is not read what the keeper does for all: it watches the
// clock, as long as nothing is read.
func (c *contender) watchBlind(ctx context.Context, end boottime.Instant) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for _, at := range []boottime.Instant{end.Add(-c.Grace), end} {
		if !lease.SleepUntil(ctx, timer, at) || c.blind.Load() != int64(end) {
			return
		}
		c.endBlind(at == end)
	}
}

// endBlind ends what cannot be read: a holder's lock is lost. A waiter that has no right to read
// gives up: it would not hear that the lock is granted to it. A token that is refused, as after an
// outage, is no such reason.
func (c *contender) endBlind(expired bool) {
	c.mu.Lock()
	why := c.unreadable
	c.mu.Unlock()
	switch {
	case c.holds.Load():
		c.lose(Unrenewed, why)
		if expired {
			c.expire()
		}
	case c.token.Load() == 0 && retry.IsDenied(why):
		c.doom(why)
		c.wake()
	}
}

// validUntil returns when validity ends: that of the lease, or sooner if our state cannot be read.
func (c *contender) validUntil() boottime.Instant {
	end := c.lease.ValidUntil()
	if blind := c.blind.Load(); blind != 0 {
		end = min(end, boottime.Instant(blind))
	}
	return end
}
