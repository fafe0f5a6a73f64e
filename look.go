package etcdlock

import (
	"cmp"
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Of how many contenders one transaction reads the state: etcd takes 128 operations, unless it was
// set up to take less.
const (
	readAtOnce = 32
)

// opsAtOnce is how many operations one transaction has at most. It is learned from what etcd
// refuses.
func (l *lease) opsAtOnce() int {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return l.allowedOps()
}

// allowedOps is opsAtOnce with crowd locked, like the following.
func (l *lease) allowedOps() int { return cmp.Or(l.mostOps, readAtOnce*wire.OpsOfState) }

// contendersAtOnce is of how many contenders the state is read at once.
func (l *lease) contendersAtOnce() int { return max(l.allowedOps()/wire.OpsOfState, 1) }

// tooMany reports whether etcd refuses a transaction because of its number of operations, and it is
// worth while to make it again with less.
func (l *lease) tooMany(err error, ops int) bool {
	if !errors.Is(err, rpctypes.ErrTooManyOps) || ops <= 1 {
		return false
	}
	l.crowd.Lock()
	defer l.crowd.Unlock()
	l.mostOps = max(ops/2, 1)
	return true
}

// surveyOf is survey as a renewal needs it.
func (l *lease) surveyOf(some []*contender) func(context.Context) (*answer, error) {
	return func(ctx context.Context) (*answer, error) { return l.survey(ctx, some) }
}

// survey reads the states of contenders, and has all of them draw their conclusions. Where etcd
// refuses that it reads less at once: one that may not be read is not to be in the way of the
// others. It returns an answer, of which there may be several, unless nothing may be read.
func (l *lease) survey(ctx context.Context, some []*contender) (*answer, error) {
	glances, ops := l.glance(some)
	if len(ops) == 0 {
		return nil, nil
	}
	resp, err := l.readUntil(ctx, isFinal, wire.StateRead(ops))
	switch {
	case err == nil:
		judgeAll(glances, resp)
		return resp, nil
	case !retry.IsRefused(err):
		return nil, err
	case len(some) <= 1:
		for _, c := range some {
			c.unread(err)
		}
		return nil, err
	}
	l.tooMany(err, len(ops))
	var last *answer
	half := len(some) / 2
	for _, part := range [][]*contender{some[:half], some[half:]} {
		resp, failed := l.survey(ctx, part)
		switch {
		case failed != nil && !retry.IsRefused(failed):
			return nil, failed
		case resp != nil:
			last, err = resp, nil
		}
	}
	return last, err
}

// glance is the read of several contenders' states in one revision.
func (l *lease) glance(some []*contender) (glances []glance, ops []*pb.RequestOp) {
	for _, c := range some {
		g, o := c.glance()
		glances, ops = append(glances, g), append(ops, o...)
	}
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if len(ops) == 0 && l.probe != "" {
		ops = wire.ProbeRead(l.probe).Success
	}
	return glances, ops
}

// judgeAll gives each contender its part of the answer.
func judgeAll(glances []glance, resp *answer) {
	n := 0
	for _, g := range glances {
		n = g.learn(resp, n)
	}
}

// look has a contender's state read, soon.
func (l *lease) look(c *contender) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil || c.unseen || c.seat < 0 {
		return
	}
	c.unseen = true
	l.unseen = append(l.unseen, c)
	if !l.looks {
		l.looks = true
		ctx := l.ctx
		l.running.Go(func() { l.looking(ctx) })
	}
}

// looking is the looker.
func (l *lease) looking(ctx context.Context) {
	for {
		some := l.nextUnseen()
		if len(some) == 0 {
			return
		}
		if _, err := l.survey(ctx, some); err != nil && !retry.IsRefused(err) {
			l.failed(ctx, err)
			return
		}
	}
}

// nextUnseen returns contenders that are to be looked at; with none, the looker has ended.
func (l *lease) nextUnseen() []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	n := min(len(l.unseen), l.contendersAtOnce())
	some := l.unseen[:n:n]
	l.unseen = l.unseen[n:]
	for _, c := range some {
		c.unseen = false
	}
	if l.looks = n > 0; !l.looks {
		l.unseen = nil
	}
	return some
}

// A glance is what is read of a contender in one revision: the lock's key and its place, and what stands in its way, if anything does.
type glance struct {
	c     *contender
	none  bool // it has no place yet
	ahead string
}

func (c *contender) glance() (glance, []*pb.RequestOp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := glance{c: c}
	if c.line.create <= 0 {
		g.none = true
		return g, nil
	}
	if c.token.Load() == 0 && c.line.ahead.key != "" && !c.line.ahead.gone {
		g.ahead = c.line.ahead.key
	}
	return g, wire.StateOps(c.key, c.place.Key, g.ahead)
}

// unread is told that etcd does not let us read the contender's state. If that lasts, its validity
// ends when it would have ended without a further renewal: a session's lease is renewed for others.
func (c *contender) unread(err error) {
	c.mu.Lock()
	c.unreadable = err
	c.mu.Unlock()
	end := c.lease.validUntil()
	if c.blind.CompareAndSwap(0, int64(end)) {
		c.lease.inBackground(func(ctx context.Context) { c.watchBlind(ctx, end) })
	}
}

// watchBlind does for a contender that is not read what the keeper does for all: it watches the
// clock, as long as nothing is read.
func (c *contender) watchBlind(ctx context.Context, end boottime.Instant) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for _, at := range []boottime.Instant{end.Add(-c.grace), end} {
		if !sleepUntil(ctx, timer, at) || c.blind.Load() != int64(end) {
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
	case c.token.Load() == 0 && errors.Is(why, rpctypes.ErrPermissionDenied):
		c.doom(why)
		c.wake()
	}
}

// validUntil returns when validity ends: that of the lease, or sooner if our state cannot be read.
func (c *contender) validUntil() boottime.Instant {
	end := c.lease.validUntil()
	if blind := c.blind.Load(); blind != 0 {
		end = min(end, boottime.Instant(blind))
	}
	return end
}

// stateRead shows whether a contender is what it believes to be.
func (c *contender) stateRead() *pb.TxnRequest {
	return wire.StateRead(wire.StateOps(c.key, c.place.Key, ""))
}

// learn draws conclusions from the answers from the n-th on, and returns how many there are up to the next contender's.
func (g glance) learn(resp *answer, n int) int {
	c := g.c
	if g.none {
		return n
	}
	state := wire.StateAt(resp, n)
	n += 2
	c.mu.Lock()
	old := c.left || c.line.create <= 0 || resp.Header.Revision < max(c.line.create, c.token.Load()) // read before, answered after
	if g.ahead != "" {
		if !old {
			c.line.readAhead(g.ahead, state.Key, wire.Got(resp, n))
		}
		n++
	}
	waits := c.token.Load() == 0
	if !old && waits {
		c.line.read(state)
	}
	c.mu.Unlock()
	if old {
		return n
	}
	c.blind.Store(0)
	if waits {
		c.wake()
	} else if reason := c.whatIsLost(state); reason != 0 {
		c.lose(reason, nil)
	}
	return n
}
