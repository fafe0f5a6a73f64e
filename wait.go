package etcdlock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// inPassing is how long the news that a holder has gone may come before the news that it passed the lock on: they are of one revision, but of two
// watches. Who does not wait for it makes a claim in vain.
const inPassing = time.Millisecond

// stepsBack is how many places that are gone a waiter goes back in the tail's history before it has
// the line read. Each is a round trip.
const stepsBack = 16

// spread is the time over which those read the line who have searched in vain: there may be thousands of them.
const spread = 500 * time.Millisecond

// wait waits in line until the lock is held. Before is what stands in the way, nothing if that is not known. Who only tries does not wait.
func (c *contender) wait(ctx context.Context, before obstacle, try bool) (err error) {
	if before.key == "" {
		if before, err = c.lookUp(ctx, obstacle{}, false); err != nil {
			return err
		}
	}
	waits, inVain, gone := false, false, obstacle{}
	for {
		won := false
		if before.key == "" {
			if won, err = c.heard(); !won && err == nil {
				won, before, err = c.claim(ctx, gone, inVain)
			}
			inVain, gone = false, obstacle{}
		} else if try {
			return ErrBusy
		} else {
			if !waits {
				waits = true
				if c.onWait != nil {
					c.lease.Notices.Post(c.onWait)
				}
			}
			c.log.Debug("waiting", "key", c.key, "behind", before.key)
			won, gone, err = c.outlast(ctx, before)
			if before = (obstacle{}); !won && err == nil && gone.left() {
				before, inVain, err = c.predecessor(ctx, gone)
			}
		}
		if won || err != nil {
			return err
		}
	}
}

// outlast waits until the lock is granted, or what stands in the way is gone: its key absent, or created anew. (A Mutex that locks
// again does so under the same key, behind us. To take that for the old one would be to wait for each other for ever.)
func (c *contender) outlast(ctx context.Context, before obstacle) (won bool, after obstacle, err error) {
	c.mu.Lock()
	c.line.ahead = before
	w := c.watch(before.key)
	c.line.onAhead = w
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.line.onAhead = nil
		c.mu.Unlock()
		c.lease.Cancel(w)
	}()
	var soon <-chan time.Time
	for {
		c.mu.Lock()
		after = c.line.ahead
		c.mu.Unlock()
		switch won, err := c.heard(); {
		case won || err != nil:
			return won, after, err
		case after.gone && !after.held:
			return false, after, nil
		case after.gone && soon == nil:
			soon = time.After(inPassing)
		}
		select {
		case <-c.news:
		case <-soon:
			return false, after, nil
		case <-ctx.Done():
			return false, after, context.Cause(ctx)
		}
	}
}

// heard reports whether the watches, or a read, have told that the lock was granted, or why it
// cannot be any more.
func (c *contender) heard() (won bool, err error) {
	c.mu.Lock()
	create, written, doom := c.line.create, c.line.written, c.line.doom
	c.mu.Unlock()
	if doom == nil && written > create {
		c.win(create, written)
		return true, nil
	}
	return false, doom
}

// predecessor finds out who stands before a place that is gone: the history of the tail tells, so that nobody has to read the line when
// it loses thousands of places at once. It returns nothing if it may be our turn, or if it has searched in vain, as many others may.
func (c *contender) predecessor(ctx context.Context, gone obstacle) (before obstacle, inVain bool, err error) {
	for range stepsBack {
		if gone.link == "" {
			return obstacle{}, false, nil
		}
		resp, err := c.lease.ReadUntil(ctx, lease.IsFinal, wire.HistoryRead(c.key, gone.key, gone.create))
		if retry.IsRefused(err) { // forgotten
			return obstacle{}, true, nil
		}
		if err != nil {
			return obstacle{}, false, c.translateRead(ctx, err)
		}
		key, there, tail := wire.Got(resp, 0), wire.Got(resp, 1), wire.Got(resp, 2)
		if there != nil && there.CreateRevision < c.create() {
			return obstacle{key: gone.key, create: there.CreateRevision, link: gone.link, seen: true}, false, nil
		}
		if key == nil || tail == nil { // the lock is free, or nobody was named
			return obstacle{}, false, nil
		}
		if won, err := c.heard(); won || err != nil {
			return obstacle{}, false, err
		}
		gone = behind(c.key, tail)
	}
	return obstacle{}, true, nil
}

// behind is the place that a tail names, as what stands in the way. Its creation is the tail's revision, unless the tail was put back: the first
// reading tells.
func behind(lock string, tail *mvccpb.KeyValue) obstacle {
	link, ok := wire.ParseLink(lock, string(tail.Value))
	if !ok {
		return obstacle{}
	}
	return obstacle{key: link.Place, create: tail.ModRevision, link: string(tail.Value)}
}

// lookUp reads the line for what stands in the way of a place: the newest older place, else the
// lock's key, else nothing. In a long line it begins behind what is gone, if that is known. A crowd
// that has done so in vain does not read a long line all at once.
func (c *contender) lookUp(ctx context.Context, gone obstacle, crowd bool) (before obstacle, err error) {
	resp, err := c.lease.Read(ctx, wire.LineRead(c.place))
	if err != nil {
		return obstacle{}, c.translateRead(ctx, err)
	}
	if line, ok := wire.LineOf(resp); ok {
		return inTheWay(c.newestOlder(line), wire.Got(resp, 0)), nil
	}
	if !crowd && !gone.held {
		if before, crowd, err = c.predecessor(ctx, gone); before.key != "" || err != nil {
			return before, err
		}
	}
	if crowd && !retry.Sleep(ctx, rand.N(spread)) {
		return obstacle{}, context.Cause(ctx)
	}
	return c.lookFar(ctx)
}

// lookFar has etcd look for the newest older place.
func (c *contender) lookFar(ctx context.Context) (obstacle, error) {
	resp, err := c.lease.Read(ctx, wire.NewestRead(c.place, c.create()))
	if err != nil {
		return obstacle{}, c.translateRead(ctx, err)
	}
	newest := wire.Got(resp, 2)
	if newest != nil && !wire.IsPlace(c.key, newest) {
		if newest, err = c.older(ctx); err != nil {
			return obstacle{}, c.translateRead(ctx, err)
		}
	}
	return inTheWay(newest, wire.Got(resp, 0)), nil
}

// inTheWay is the newest older place, else the lock's key, else nothing.
func inTheWay(newest, key *mvccpb.KeyValue) obstacle {
	if newest == nil {
		newest = key
	}
	if newest == nil {
		return obstacle{}
	}
	return obstacle{key: string(newest.Key), create: newest.CreateRevision}
}

// older lists the line for the newest older place: a key that is not a place tells nothing of what
// is behind it. Of keys that have the name of a place some are read at a time, newest first: only
// then it shows whether they are places, and they may have values of any size.
func (c *contender) older(ctx context.Context) (newest *mvccpb.KeyValue, err error) {
	resp, err := c.lease.Read(ctx, wire.NamesRead(c.key, c.create()))
	if err != nil {
		return nil, err
	}
	named := wire.NamedAsPlaces(c.key, wire.KeysOf(resp, 0))
	for len(named) > 0 {
		some := named[:min(len(named), c.lease.OpsAtOnce(), wire.ShortLine)]
		var keys []string
		for _, kv := range some {
			keys = append(keys, string(kv.Key))
		}
		resp, err = c.lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(keys...))
		if c.lease.TooMany(err, len(some)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var kvs []*mvccpb.KeyValue
		for i := range resp.Responses {
			kvs = append(kvs, wire.KeysOf(resp, i)...)
		}
		if newest = c.newestOlder(kvs); newest != nil {
			return newest, nil
		}
		named = named[len(some):]
	}
	return nil, nil
}

// newestOlder is the newest place among keys below K/ that is older than ours, nil without one.
func (c *contender) newestOlder(kvs []*mvccpb.KeyValue) (newest *mvccpb.KeyValue) {
	for _, kv := range wire.Places(c.key, kvs) {
		if kv.CreateRevision < c.create() {
			newest = kv
		}
	}
	return newest
}

// claim takes the lock if it is our turn. If it is not, before says what stands in the way. To repeat a claim whose
// outcome is unknown is safe: it requires our place as it was created, so once one of them was applied, the others
// are refused, and the answer shows that the lock is ours.
//
// Who stood directly behind a holder that is gone is next if no stranger is in line, and need not have etcd go through the line. In a crowd that lost
// its neighbours, those whose turn it is not do not all read the line at once.
func (c *contender) claim(ctx context.Context, gone obstacle, crowd bool) (won bool, before obstacle, err error) {
	taken := false
	if gone.held {
		if won, taken, err = c.claimBy(ctx, wire.ClaimBehindHolder); won || err != nil {
			return won, obstacle{}, err
		}
	}
	if !taken {
		if won, _, err = c.claimBy(ctx, wire.Claim); won || err != nil {
			return won, obstacle{}, err
		}
	}
	if before, err = c.lookUp(ctx, gone, crowd); before.key != "" || err != nil {
		return false, before, err
	}
	// What is below the key and older than our place is none of the line, and nothing older can come any more.
	if won, _, err = c.claimBy(ctx, wire.ClaimOldest); won || err != nil {
		return won, obstacle{}, err
	}
	before, err = c.lookUp(ctx, obstacle{}, crowd)
	return false, before, err
}

// claimBy makes one claim. Refused, it says whether somebody holds the lock.
func (c *contender) claimBy(ctx context.Context, claim func(wire.Place, int64) *pb.TxnRequest) (won, taken bool, err error) {
	resp, repeated, err := c.rewriteWithSpace(ctx, claim(c.place, c.create()))
	c.strays = c.strays || repeated
	if err != nil {
		return false, false, c.translateRead(ctx, err)
	}
	token := resp.Header.Revision
	if !resp.Succeeded {
		state := wire.StateAt(resp, 0)
		taken = state.Key != nil
		c.mu.Lock()
		token, err = c.line.read(state)
		c.mu.Unlock()
	}
	if token != 0 {
		c.win(c.create(), token)
	}
	return token != 0, taken, err
}

// rewriteWithSpace is rewrite that waits until etcd has space.
func (c *contender) rewriteWithSpace(ctx context.Context, req *pb.TxnRequest) (resp *answer, repeated bool, err error) {
	for waits := false; ; waits = true {
		resp, repeated, err = c.rewrite(ctx, req)
		if repeated = repeated || waits; !retry.IsNoSpace(err) {
			return resp, repeated, err
		}
		if !waits {
			c.log.Warn("etcd has no space, waiting until it has", "key", c.key)
		}
		if !retry.Sleep(ctx, retry.PauseMax) {
			return nil, true, context.Cause(ctx)
		}
	}
}

// What an operator's hand does to a place in line.
var (
	errDeleted     = fmt.Errorf("%w: deleted from outside", errStartOver)
	errOverwritten = fmt.Errorf("%w: overwritten from outside", errStartOver)
)
