package etcdlock

import (
	"context"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A ghost is a place in line of which nobody knows whether it is there or will be: what was sent to create or to delete it was not
// answered. Its name is not used again. A lease of its own would be revoked; that of a session serves others, so the session takes the
// place back whenever it appears.
type ghost struct {
	*contender
	watched *watch
	busy    atomic.Bool
}

// haunt leaves a place to the session.
func (c *contender) haunt() {
	c.stop()
	g := &ghost{contender: c}
	g.watched = watchKey(c.lease.client, c.place, g, growth*c.lease.first)
	c.lease.crowd.Lock()
	c.lease.ghosts = append(c.lease.ghosts, g)
	c.lease.crowd.Unlock()
	g.seek()
}

func (g *ghost) confirmed(*watch, int64, bool)                          { g.seek() }
func (g *ghost) told(_ *watch, _ []*mvccpb.Event, _ *pb.ResponseHeader) { g.seek() }

// seek looks for the place, and takes it back. It does not block.
func (g *ghost) seek() {
	l := g.lease
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil || !g.busy.CompareAndSwap(false, true) {
		return
	}
	ctx := l.ctx
	l.running.Go(func() {
		defer g.busy.Store(false)
		g.takeBack(ctx)
	})
}

// takeBack removes what there is of a contender under a lease that serves others, too. What it does not do the next look does.
func (c *contender) takeBack(ctx context.Context) {
	resp, err := c.lease.read(ctx, c.state()...)
	if err == nil {
		key, own := getOne(resp, 0), getOne(resp, 1)
		if own != nil {
			err = c.removeAs(ctx, key, own)
		} else if key != nil && key.Lease == int64(c.lease.id) {
			err = c.removeOrphan(ctx, key)
		}
	}
	if err != nil {
		c.log.Warn("cannot take back a place in line yet", "key", c.key, "place", c.place, "cause", err)
	}
}

// removeOrphan deletes the lock's key if no place was written with it: somebody deleted that place before it was known that the lock was granted
// to it, and the lease, which serves others, would keep the key.
func (c *contender) removeOrphan(ctx context.Context, key *mvccpb.KeyValue) error {
	resp, err := c.lease.read(ctx, writtenBelow(c.key, key.ModRevision))
	if err != nil || len(resp.Responses[0].GetResponseRange().Kvs) > 0 {
		return err
	}
	_, _, err = c.rewrite(ctx, []*comparison{modIs(c.key, key.ModRevision)}, []*operation{remove(c.key)}, nil)
	return err
}
