package etcdlock

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A lease of its own is revoked when a contender gives up. That of a session serves others, so the session takes back what there is of the
// contender, for as long as that takes.

// retreat has a session's contender taken out of the line. It does not block; done is closed when nothing is left, or the lease has gone.
func (c *contender) retreat() (done <-chan struct{}) {
	c.stop()
	gone := make(chan struct{})
	if !c.lease.inBackground(func(ctx context.Context) {
		defer close(gone)
		if err := c.clear(ctx); err != nil {
			c.log.Warn("a place in line stays until its lease runs out", "key", c.key, "place", c.place, "cause", err)
		}
	}) {
		close(gone)
	}
	return gone
}

// clear removes what there is of a contender under a lease that serves others, too.
func (c *contender) clear(ctx context.Context) error {
	switch token, create := c.token.Load(), c.create(); {
	case token != 0:
		done, _, err := c.handOver(ctx)
		if err != nil || done {
			return err
		}
		return c.takeBack(ctx)
	case create == unknownRevision:
		c.haunt()
		return nil
	case create == 0:
		return nil
	}
	if err := c.leave(ctx); err != nil {
		return err
	}
	return c.removeOrphan(ctx)
}

// takeBack removes a place that is there, in whatever state it is.
func (c *contender) takeBack(ctx context.Context) error {
	resp, err := c.lease.read(ctx, c.state()...)
	if err != nil {
		return err
	}
	return c.removeAs(ctx, getOne(resp, 0), getOne(resp, 1))
}

// removeOrphan deletes the lock's key if it is under our lease and no place was written with it: somebody deleted that place before it was
// known that the lock was granted to it, and the lease, which serves others, would keep the key.
func (c *contender) removeOrphan(ctx context.Context) error {
	if !c.wasRobbed() {
		return nil
	}
	resp, err := c.lease.read(ctx, get(c.key))
	if err != nil {
		return err
	}
	key := getOne(resp, 0)
	if key == nil || key.Lease != int64(c.lease.id) {
		return nil
	}
	resp, err = c.lease.read(ctx, writtenBelow(c.key, key.ModRevision))
	if err != nil || len(resp.Responses[0].GetResponseRange().Kvs) > 0 {
		return err
	}
	_, _, err = c.rewrite(ctx, []*comparison{modIs(c.key, key.ModRevision)}, []*operation{remove(c.key)}, nil)
	return err
}

// A ghost is a place in line of which nobody knows whether it is there or will be: what was sent to create it was not answered. Its name is not
// used again, and the session takes it back whenever it appears, as long as the lease lasts.
type ghost struct {
	*contender
	busy atomic.Bool
}

// haunt leaves a place to the session.
func (c *contender) haunt() {
	g := &ghost{contender: c}
	c.lease.crowd.Lock()
	c.lease.ghosts = append(c.lease.ghosts, g)
	c.lease.crowd.Unlock()
	watchKey(c.lease.client, c.place, 0, g, growth*c.lease.first)
	g.seek()
}

func (g *ghost) confirmed(*watch, int64, bool)                          { g.seek() }
func (g *ghost) told(_ *watch, _ []*mvccpb.Event, _ *pb.ResponseHeader) { g.seek() }

// seek looks for the place, and takes it back. It does not block.
func (g *ghost) seek() {
	if !g.busy.CompareAndSwap(false, true) {
		return
	}
	if !g.lease.inBackground(func(ctx context.Context) {
		defer g.busy.Store(false)
		if err := g.takeBack(ctx); err != nil {
			g.log.Warn("cannot take back a place in line yet", "key", g.key, "place", g.place, "cause", err)
		}
	}) {
		g.busy.Store(false)
	}
}
