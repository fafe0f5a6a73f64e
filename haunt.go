package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A lease of its own is revoked when a contender gives up. That of a session serves others, so the session takes back what there is of the
// contender, for as long as that takes.

// retreat has a session's contender taken out of the line. It does not block; done is closed when nothing is left, or the lease has gone.
func (c *contender) retreat() (done <-chan struct{}) {
	c.stop()
	c.ends.Store(false)
	gone := make(chan struct{})
	if !c.lease.Go(func(ctx context.Context) {
		defer close(gone)
		late := !c.joins.areSettled()
		c.clearAway(ctx)
		if late {
			c.hauntLater()
		}
	}) {
		close(gone)
	}
	return gone
}

// clearAway removes what there is of a contender, for as long as its lease lasts: it is renewed, so
// what is refused now must be asked for again.
func (c *contender) clearAway(ctx context.Context) {
	err := c.clear(ctx)
	if err != nil && ctx.Err() == nil {
		c.say(slog.LevelWarn, "cannot take back a place in line yet", "key", c.key, "place", c.place.Key, "cause", err)
	}
	for pause := retry.PauseMin; err != nil && !errors.Is(err, lease.ErrHistoryLost); err = c.clear(ctx) {
		if !retry.Sleep(ctx, pause) {
			c.say(slog.LevelWarn, "a place in line stays until its lease runs out", "key", c.key, "place", c.place.Key, "cause", err)
			return
		}
		pause = min(2*pause, retry.PauseRefused)
	}
}

// clear removes what there is of a contender under a lease that serves others, too.
func (c *contender) clear(ctx context.Context) error {
	switch token, create := c.token.Load(), c.create(); {
	case token != 0:
		done, _, err := c.handOver(ctx)
		if err != nil || done {
			return err
		}
		_, err = c.takeBack(ctx)
		return err
	case create == unknownRevision && c.joins.areSettled(): // to look is enough
		_, err := c.takeBack(ctx)
		return err
	case create == unknownRevision:
		c.haunt()
		return nil
	case create == 0:
		return nil
	}
	absent, err := c.leave(ctx)
	if err != nil || !absent {
		return err
	}
	return c.removeOrphan(ctx)
}

// takeBack removes a place if it is there, in whatever state it is, and what it may have left.
func (c *contender) takeBack(ctx context.Context) (there bool, err error) {
	for {
		resp, err := c.lease.ReadUntil(ctx, lease.IsFinal, c.stateRead())
		if err != nil {
			return there, err
		}
		state := wire.StateAt(resp, 0)
		if state.Place == nil {
			return there, c.removeOrphan(ctx)
		}
		there = true
		if done, err := c.removeAs(ctx, state); done || err != nil {
			return there, err
		}
	}
}

// removeOrphan deletes what somebody who deleted our place has left: the tail if it names that
// place, and the lock's key if it was granted to us and no place was written with it. That is so if
// the place went before it was known that the lock was granted to it. The lease serves others, and
// would keep both. Who only missed an answer finds somebody else's name in the lock's key, and need
// not go through the line.
func (c *contender) removeOrphan(ctx context.Context) error {
	if err := c.removeTail(ctx); err != nil {
		return err
	}
	resp, err := c.lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(c.key))
	if err != nil {
		return err
	}
	key := wire.Got(resp, 0)
	if key == nil || key.Lease != int64(c.lease.ID()) || string(key.Value) != c.place.ID || key.ModRevision < c.create() {
		return nil
	}
	resp, err = c.lease.ReadUntil(ctx, lease.IsFinal, wire.WrittenRead(c.key, key.ModRevision))
	if err != nil || len(wire.KeysOf(resp, 0)) > 0 {
		return err
	}
	_, _, err = c.rewrite(ctx, wire.RemoveKey(c.key, key.ModRevision))
	return err
}

// removeTail deletes the tail if it names the place. Who may not read it has not written it.
func (c *contender) removeTail(ctx context.Context) error {
	if !c.place.Linked {
		return nil
	}
	resp, err := c.lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(wire.Tail(c.key)))
	if retry.IsDenied(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.place.IsNamedBy(wire.Got(resp, 0)) {
		_, _, err = c.rewrite(ctx, wire.RemoveTail(c.place))
	}
	return err
}

// A ghost is a place in line of which nobody knows whether it is there or will be: what was sent to
// create it was not answered. Its name is not used again, and the session takes it back when it
// appears, until all of that is answered, or the lease ends.
type ghost struct {
	*contender
	watched *watch.Watch

	mu          sync.Mutex
	busy, again bool
}

// hauntLater leaves to the session what may become of a place that is gone. It is another
// contender's: what the user has of this one must not change.
func (c *contender) hauntLater() {
	other := &contender{settings: c.settings, owner: c.owner, key: c.key, lease: c.lease,
		place: c.place, strays: true, joins: c.joins}
	other.haunt()
}

// haunt leaves a place to the session, unless that was done.
func (c *contender) haunt() {
	g := &ghost{contender: c}
	if !c.joins.ghost.CompareAndSwap(nil, g) {
		return
	}
	watched := c.lease.Watch(c.place.Key, 0, g)
	g.mu.Lock()
	g.watched = watched
	g.mu.Unlock()
	c.lease.Track(g)
	g.seek()
}

func (g *ghost) OnCreated(*watch.Watch, int64, bool)                              { g.seek() }
func (g *ghost) OnEvents(_ *watch.Watch, _ []*mvccpb.Event, _ *pb.ResponseHeader) { g.seek() }

// seek looks for the place, and takes it back. It does not block.
func (g *ghost) seek() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.again = true
	if !g.busy {
		g.busy = g.lease.Go(g.exorcise)
	}
}

// exorcise lets the ghost go when the place has been looked for after the last request that could
// create it was answered: each of them may do so once.
func (g *ghost) exorcise(ctx context.Context) {
	for g.more() {
		settled := g.joins.areSettled()
		g.doubt()
		_, err := g.takeBack(ctx)
		if err != nil {
			g.say(slog.LevelWarn, "cannot take back a place in line yet", "key", g.key, "place", g.place.Key, "cause", err)
		} else if settled {
			g.lease.Untrack(g)
			g.Forget()
		}
	}
}

// more reports whether the place is to be looked for again.
func (g *ghost) more() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.again = g.again, false
	return g.busy
}

// OnRenewed looks for the place.
func (g *ghost) OnRenewed() { g.seek() }

// Forget ends the waiting for the place.
func (g *ghost) Forget() {
	g.mu.Lock()
	watched := g.watched
	g.mu.Unlock()
	g.lease.Cancel(watched)
}
