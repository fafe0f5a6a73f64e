package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// errStartOver says that a place in line is gone, or that it cannot be known whether there is one: whatever may be
// left of it is fenced off, and another one is taken at the end of the line.
var errStartOver = errors.New("the place in line is gone")

// acquire takes a place in line and waits for its turn. Unanswered rings if etcd does not answer at
// the start, or, with try, at all.
func (l *Lock) acquire(ctx context.Context, s settings, try bool, unanswered *time.Timer) (*contender, error) {
	answered, said := false, ""
	ls, err := l.prepare(ctx, s)
	for {
		if err != nil {
			return nil, err
		}
		if try || !answered {
			unanswered.Reset(s.Connect)
		}
		c := newContender(l, s, ls)
		if err = c.enter(ctx, try, unanswered); err == nil {
			return c, nil
		}
		answered = answered || c.create() > 0
		if errors.Is(err, ErrBusy) && c.create() == 0 && !c.strays {
			c.stop()
			return nil, err // nothing was written: the lease can serve again
		}
		denied := retry.IsDenied(err)
		if denied && c.place.Linked && c.create() == unknownRevision {
			l.unlinked, err = true, fmt.Errorf("%w: %w", errStartOver, err)
		}
		if denied && c.create() == 0 && !c.strays {
			if l.unlinked, l.under = c.place.Linked, nil; l.unlinked {
				c.stop() // refused as a whole: nothing was written
				err = nil
				continue
			}
		}
		l.under = nil
		again := errors.Is(err, errStartOver) && ctx.Err() == nil
		if again && retry.IsNoSpace(err) {
			again = answered && !try // who has stood in line waits until there is space
		}
		if again {
			if why := err.Error(); why != said {
				s.log.Warn("place in line lost, taking another", "key", l.key, "cause", why)
				said = why
			}
			ls, err = l.startOver(ctx, c, s, err)
			continue
		}
		c.giveUp(ctx)
		l.atHand = nil
		if errors.Is(err, ErrBusy) {
			return nil, err
		}
		switch {
		case ctx.Err() != nil:
			err = retry.Cause(ctx, err)
		case retry.IsNoSpace(err):
			err = rpctypes.ErrNoSpace
		}
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
	}
}

// startOver fences off what a contender may have left, and prepares for the next. It waits for etcd as long as it takes.
func (l *Lock) startOver(ctx context.Context, c *contender, s settings, err error) (*lease.Lease, error) {
	l.atHand = nil
	if c.lease.IsShared() {
		c.doom(err)
		c.retreat()
		// Each join whose outcome is unknown leaves something to look after: the next one waits until etcd answers.
		if _, err := c.lease.Read(ctx, wire.ProbeRead(c.key)); err != nil && !errors.Is(err, lease.ErrHistoryLost) {
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
	} else {
		c.stop()
		if err := lease.Revoke(ctx, l.client, c.lease.ID(), c.lease.First()); err != nil {
			c.fence(ctx)
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
		c.removeDetached(ctx)
	}
	for noSpace := retry.IsNoSpace(err); ; {
		if noSpace && !retry.Sleep(ctx, retry.PauseMax) {
			return nil, context.Cause(ctx)
		}
		ls, err := l.prepare(ctx, s)
		if noSpace = retry.IsNoSpace(err); !noSpace && !errors.Is(err, ErrNoAnswer) {
			return ls, err
		}
	}
}

// enter joins the line and waits. It returns nil when the lock is held, with time to use it.
func (c *contender) enter(ctx context.Context, try bool, unanswered *time.Timer) error {
	won := false
	var err error
	if try || c.alone {
		if won, err = c.joinAlone(ctx); err != nil {
			return err
		}
	}
	if try && !won {
		if err := c.busy(ctx, false); err != nil {
			return err
		}
	}
	var before obstacle
	if !won {
		if won, before, err = c.join(ctx); err != nil {
			return err
		}
	}
	if !try {
		unanswered.Stop()
	}
	if !won {
		switch err := c.wait(ctx, before, try); {
		case err == ErrBusy:
			return c.busy(ctx, true)
		case err != nil:
			return err
		}
	}
	// With little validity left, as after an outage, a renewal comes before the clock is watched: nothing runs under the lock
	// that would have to be stopped, and the lock is not lost as long as etcd has the lease.
	if c.lease.ValidUntil().Until() < c.Grace+2*c.lease.First() {
		_, err := c.lease.Renew(ctx, func(ctx context.Context) (*answer, error) {
			return c.lease.ReadUntil(ctx, lease.IsFinal, c.stateRead())
		})
		if err != nil {
			return c.translate(err)
		}
	}
	c.granted()
	return nil
}

// joinAlone takes the lock if nobody is there at all, and writes nothing if somebody is. It asks for less than join does,
// so it is what a contender begins with that met nobody the last time.
func (c *contender) joinAlone(ctx context.Context) (won bool, err error) {
	by, resp, err := c.write(ctx, func(again bool) *pb.TxnRequest { return wire.AcquireIfFree(c.place, again) })
	switch {
	case err != nil:
		return false, err
	case by == byEarlierTry:
		return c.isThere(resp), nil
	case by == byThen:
		c.win(resp.Header.Revision, resp.Header.Revision)
	}
	return by == byThen, nil
}

// busy returns a *BusyError that names who is there, nil if what is there is no place in line. Who
// stands in line itself has seen a place before its own.
func (c *contender) busy(ctx context.Context, inLine bool) error {
	resp, err := c.lease.Read(ctx, wire.BusyRead(c.key))
	if err != nil {
		return c.translateRead(ctx, err)
	}
	places := int(wire.CountOf(resp, 1))
	if inLine {
		places--
	}
	busy := &BusyError{Key: c.key, Place: max(places, 1)} // without places, the key was made by hand
	if key := wire.Got(resp, 0); key != nil {
		busy.Holder, busy.held = wire.Shown(key.Value), true
		return busy
	}
	if inLine {
		return busy
	}
	newest, err := c.lease.Read(ctx, wire.NewestOfAllRead(c.key))
	if err != nil {
		return c.translateRead(ctx, err)
	}
	if kv := wire.Got(newest, 0); kv != nil && wire.IsPlace(c.key, kv) {
		return busy
	}
	return nil
}

// join takes the lock if nobody is there, else a place at the end of the line: one round trip either way. Before is
// what stands in the way, nothing if that is not known.
func (c *contender) join(ctx context.Context) (won bool, before obstacle, err error) {
	c.watchPlace()
	by, resp, err := c.write(ctx, func(bool) *pb.TxnRequest { return wire.Acquire(c.place) })
	switch rev := resp.GetHeader().GetRevision(); {
	case err != nil:
		return false, obstacle{}, err
	case by == byEarlierTry:
		won = c.isThere(resp)
		c.entered(c.create(), c.place.Linked && !won)
		return won, obstacle{}, nil
	case by == byThen:
		c.win(rev, rev)
		c.entered(rev, false)
		return true, obstacle{}, nil
	default:
		c.entered(rev, c.place.Linked)
	}
	switch newest := wire.Got(resp, 1); {
	case newest == nil:
		return false, obstacle{}, nil
	case c.place.Linked:
		return false, behind(c.key, newest), nil
	case wire.IsPlace(c.key, newest):
		return false, obstacle{key: string(newest.Key), create: newest.CreateRevision}, nil
	}
	return false, obstacle{}, nil
}

// entered takes note of where the contender stands, and whether the tail names it.
func (c *contender) entered(create int64, tail bool) {
	c.mu.Lock()
	c.line.tail = tail
	look, missed := c.line.joined(create)
	if missed {
		c.rewatchTail()
	}
	c.forgetTail()
	c.mu.Unlock()
	if look {
		c.lease.ScheduleRead(c)
	}
	c.lease.DeferWatches(c)
}

// doom says why the place is of no use any more.
func (c *contender) doom(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.doom = why
}

// doubt says that it is not known whether the contender has a place.
func (c *contender) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.create, c.line.tail = unknownRevision, c.place.Linked
}

// What has created a place.
type creation int

const (
	byNothing creation = iota // it is not there
	byThen
	byElse
	byEarlierTry // of the same transaction
)

// write makes a transaction that creates the place, and returns what did it and the answer to that:
// the state of the place if it was an earlier try. If it is not answered in time it is made again.
//
// What was not answered may be carried out later, when the place is gone. It creates a place that
// nobody stands at, so that nobody works under it, and is waited for: see joins.
func (c *contender) write(ctx context.Context, txn func(again bool) *pb.TxnRequest) (by creation, resp *answer, err error) {
	join := func(again bool) func(context.Context) (*answer, error) {
		req := txn(again)
		return func(ctx context.Context) (*answer, error) { return c.joins.make(ctx, c.lease, req) }
	}
	resp, err = retry.Once(ctx, c.lease.First(), join(false))
	if err != nil && !lease.IsFinal(err) {
		c.strays = true
		limited, cancel := c.lease.WhileValid(ctx)
		defer cancel()
		resp, err = retry.Again(limited, c.lease.First(), lease.IsFinal, join(true), err)
	}
	if err != nil {
		if c.strays || retry.IsNoSpace(err) { // one of the others may have been carried out
			c.doubt()
		}
		return byNothing, nil, c.translate(err)
	}
	switch inner := wire.Inner(resp); {
	case resp.Succeeded:
		return byThen, resp, nil
	case inner == nil, inner.Succeeded && len(inner.Responses) == 0:
		return byNothing, resp, nil
	case inner.Succeeded:
		return byElse, inner, nil
	default:
		return byEarlierTry, inner, nil
	}
}

// joins are the requests to join that a contender has made. Each is waited for until it is
// answered, also when another one has been: only then it is known that it creates nothing any more.
type joins struct {
	unsettled atomic.Int64
	ghost     atomic.Pointer[ghost] // waits for what they may create
}

func (j *joins) areSettled() bool { return j.unsettled.Load() == 0 }

// make makes one. It goes on when ctx has ended, for as long as the lease is looked after.
func (j *joins) make(ctx context.Context, ls *lease.Lease, req *pb.TxnRequest) (*answer, error) {
	type result struct {
		answer *answer
		err    error
	}
	done := make(chan result, 1)
	j.unsettled.Add(1)
	if !ls.Go(func(ctx context.Context) {
		resp, err := ls.Txn(ctx, req)
		if err == nil || lease.IsFinal(err) || retry.Classify(err) == retry.NotNow {
			j.settle()
		}
		done <- result{resp, err}
	}) {
		j.settle()
		return nil, lease.ErrGone
	}
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// settle takes note that one of them is answered.
func (j *joins) settle() {
	if j.unsettled.Add(-1) > 0 {
		return
	}
	if g := j.ghost.Load(); g != nil {
		g.seek()
	}
}

// isThere draws conclusions from the state of a place that an earlier try has created, and reports
// whether the lock was won.
func (c *contender) isThere(resp *answer) (won bool) {
	state, token := wire.StateAt(resp, 0), int64(0)
	if state.Holds() {
		token = state.Place.ModRevision
	}
	c.win(state.Place.CreateRevision, token)
	return token != 0
}

// rewrite makes a transaction that may be applied more than once, until etcd answers it. Repeated says that one try at
// least has an unknown outcome.
func (c *contender) rewrite(ctx context.Context, req *pb.TxnRequest) (resp *answer, repeated bool, err error) {
	rpc := func(ctx context.Context) (*answer, error) { return c.lease.Txn(ctx, req) }
	first := c.lease.First()
	if c.ends.Load() {
		first = min(first, c.lease.ValidUntil().Until())
	}
	if resp, err = retry.Once(ctx, first, rpc); err == nil || lease.IsFinal(err) {
		return resp, err != nil, err
	}
	if c.ends.Load() {
		var cancel context.CancelFunc
		ctx, cancel = c.lease.WhileValid(ctx)
		defer cancel()
	}
	resp, err = retry.Again(ctx, c.lease.First(), lease.IsFinal, rpc, err)
	return resp, true, err
}

// translate says of an error whether the contender is to start over.
func (c *contender) translate(err error) error {
	switch { // for all who hang on the lease
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		c.lease.Fail(lease.ErrGone)
	case errors.Is(err, lease.ErrHistoryLost):
		c.lease.Fail(lease.ErrHistoryLost)
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, lease.ErrGone), errors.Is(err, lease.ErrHistoryLost):
		return fmt.Errorf("%w: %w", errStartOver, err)
	case retry.IsRefused(err):
		return err
	}
	return fmt.Errorf("%w: outcome unknown: %w", errStartOver, err)
}

// translateRead is translate for reads, which have no outcome that could be unknown.
func (c *contender) translateRead(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return c.translate(err)
}
