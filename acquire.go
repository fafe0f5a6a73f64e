package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/place"
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
			unanswered.Reset(s.connect)
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
		denied := errors.Is(err, rpctypes.ErrPermissionDenied)
		if denied && c.linked && c.create() == unknownRevision {
			l.unlinked, err = true, fmt.Errorf("%w: %w", errStartOver, err)
		}
		if denied && c.create() == 0 && !c.strays {
			if l.unlinked, l.under = c.linked, nil; l.unlinked {
				c.stop() // refused as a whole: nothing was written
				err = nil
				continue
			}
		}
		l.under = nil
		again := errors.Is(err, errStartOver) && ctx.Err() == nil
		if again && isNoSpace(err) {
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
			err = causeOf(ctx, err)
		case isNoSpace(err):
			err = rpctypes.ErrNoSpace
		}
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
	}
}

// startOver fences off what a contender may have left, and prepares for the next. It waits for etcd as long as it takes.
func (l *Lock) startOver(ctx context.Context, c *contender, s settings, err error) (*lease, error) {
	l.atHand = nil
	if c.lease.shared {
		c.doom(err)
		c.retreat()
		// Each join whose outcome is unknown leaves something to look after: the next one waits until etcd answers.
		if _, err := c.lease.read(ctx, exists(c.key)); err != nil && !errors.Is(err, errHistoryLost) {
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
	} else {
		c.stop()
		if err := revoke(ctx, l.client, c.lease.id, c.lease.first); err != nil {
			c.fence(ctx)
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
		c.removeDetached(ctx)
	}
	for noSpace := isNoSpace(err); ; {
		if noSpace && !sleep(ctx, pauseMax) {
			return nil, context.Cause(ctx)
		}
		ls, err := l.prepare(ctx, s)
		if noSpace = isNoSpace(err); !noSpace && !errors.Is(err, ErrNoAnswer) {
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
	if c.lease.validUntil().Until() < c.grace+2*c.lease.first {
		_, err := c.lease.renew(ctx, func(ctx context.Context) (*answer, error) {
			return c.lease.readUntil(ctx, isFinal, c.state()...)
		})
		if err != nil {
			return c.translate(err)
		}
	}
	c.granted()
	return nil
}

// winning is what makes a place the holder's: the lock's key and the place, written in one revision.
func (c *contender) winning() []*operation {
	return []*operation{put(c.key, c.id, c.lease.id), c.putPlace()}
}

func (c *contender) putPlace() *operation { return put(c.place, c.record, c.lease.id) }

// joinAlone takes the lock if nobody is there at all, and writes nothing if somebody is. It asks for less than join does,
// so it is what a contender begins with that met nobody the last time.
func (c *contender) joinAlone(ctx context.Context) (won bool, err error) {
	by, resp, err := c.write(ctx, nobody(c.key), c.winning(), nil)
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
	resp, err := c.lease.read(ctx, get(c.key), existBelow(c.key))
	if err != nil {
		return c.translateRead(ctx, err)
	}
	places := int(resp.Responses[1].GetResponseRange().Count)
	if inLine {
		places--
	}
	busy := &BusyError{Key: c.key, Place: max(places, 1)} // without places, the key was made by hand
	if key := getOne(resp, 0); key != nil {
		busy.Holder, busy.held = place.Shown(key.Value), true
		return busy
	}
	if inLine {
		return busy
	}
	newest, err := c.lease.read(ctx, newestBelow(c.key, ever))
	if err != nil {
		return c.translateRead(ctx, err)
	}
	if kv := getOne(newest, 0); kv != nil && place.Is(c.key, kv) {
		return busy
	}
	return nil
}

// join takes the lock if nobody is there, else a place at the end of the line: one round trip either way. Before is
// what stands in the way, nothing if that is not known.
func (c *contender) join(ctx context.Context) (won bool, before obstacle, err error) {
	c.watchPlace()
	// Gets before a put in one transaction see the line as it was before it.
	newest, swap := get(place.Tail(c.key)), []*operation{c.putTail(c.link(), c.lease.id)}
	nobody := nobody(c.key)
	if c.linked {
		// With a tail somebody waits, whatever K says just now: then the line is not gone through.
		nobody = slices.Insert(nobody, 1, createIs(place.Tail(c.key), 0))
	} else {
		newest, swap = newestBelow(c.key, ever), nil
	}
	els := append([]*operation{get(c.key), newest, c.putPlace()}, swap...)
	by, resp, err := c.write(ctx, nobody, c.winning(), els)
	switch rev := resp.GetHeader().GetRevision(); {
	case err != nil:
		return false, obstacle{}, err
	case by == byEarlierTry:
		won = c.isThere(resp)
		c.entered(c.create(), c.linked && !won)
		return won, obstacle{}, nil
	case by == byThen:
		c.win(rev, rev)
		c.entered(rev, false)
		return true, obstacle{}, nil
	default:
		c.entered(rev, c.linked)
	}
	switch newest := getOne(resp, 1); {
	case newest == nil:
		return false, obstacle{}, nil
	case c.linked:
		return false, behind(c.key, newest), nil
	case place.Is(c.key, newest):
		return false, obstacle{key: string(newest.Key), create: newest.CreateRevision}, nil
	}
	return false, obstacle{}, nil
}

// link is the contender's place as the tail names it.
func (c *contender) link() string {
	return place.Link{Place: c.place, ID: c.id}.Marshal(c.key)
}

func (c *contender) putTail(link string, lease clientv3.LeaseID) *operation {
	return put(place.Tail(c.key), link, lease)
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
		c.lease.look(c)
	}
	c.lease.ripen(c)
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
	c.line.create, c.line.tail = unknownRevision, c.linked
}

// What has created a place.
type creation int

const (
	byNothing creation = iota // it is not there
	byThen
	byEls
	byEarlierTry // of the same transaction
)

// write makes a transaction that creates the place, by then or by els, and returns what did it and
// the answer to that: the state of the place if it was an earlier try. If it is not answered in
// time it is made again. None of the tries does anything if the place is there: there is what was
// found. A place that is written again would look as if it had been granted the lock.
//
// What was not answered may be carried out later, when the place is gone. It creates a place that
// nobody stands at, so that nobody works under it, and is waited for: see joins.
func (c *contender) write(ctx context.Context, cmps []*comparison, then, els []*operation) (by creation, resp *answer, err error) {
	unlessThere := []*operation{within([]*comparison{createIs(c.place, 0)}, els, c.state())}
	first := unlessThere
	if len(els) == 0 { // and nothing that could be there
		first = nil
	}
	join := func(els []*operation) func(context.Context) (*answer, error) {
		return func(ctx context.Context) (*answer, error) { return c.joins.make(ctx, c.lease, cmps, then, els) }
	}
	resp, err = try(ctx, c.lease.first, join(first))
	if err != nil && !isFinal(err) {
		c.strays = true
		limited, cancel := c.lease.whileValid(ctx)
		defer cancel()
		resp, err = hedge(limited, c.lease.first, isFinal, join(unlessThere), err)
	}
	switch {
	case err != nil:
		if c.strays || isNoSpace(err) { // one of the others may have been carried out
			c.doubt()
		}
		return byNothing, nil, c.translate(err)
	case resp.Succeeded:
		return byThen, resp, nil
	case len(resp.Responses) == 0:
		return byNothing, resp, nil
	}
	inner := resp.Responses[0].GetResponseTxn()
	inner.Header = resp.Header
	switch {
	case !inner.Succeeded:
		return byEarlierTry, inner, nil
	case len(els) == 0:
		return byNothing, inner, nil
	}
	return byEls, inner, nil
}

// joins are the requests to join that a contender has made. Each is waited for until it is
// answered, also when another one has been: only then it is known that it creates nothing any more.
type joins struct {
	unsettled atomic.Int64
	ghost     atomic.Pointer[ghost] // waits for what they may create
}

func (j *joins) areSettled() bool { return j.unsettled.Load() == 0 }

// make makes one. It goes on when ctx has ended, for as long as the lease is looked after.
func (j *joins) make(ctx context.Context, ls *lease, cmps []*comparison, then, els []*operation) (*answer, error) {
	type result struct {
		answer *answer
		err    error
	}
	done := make(chan result, 1)
	j.unsettled.Add(1)
	if !ls.inBackground(func(ctx context.Context) {
		resp, err := ls.txn(ctx, cmps, then, els)
		if err == nil || isFinal(err) || judge(err) == notNow {
			j.settle()
		}
		done <- result{resp, err}
	}) {
		j.settle()
		return nil, errLeaseGone
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
func (c *contender) isThere(state *answer) (won bool) {
	key, own := getOne(state, 0), getOne(state, 1)
	token := int64(0)
	if key != nil && key.ModRevision == own.ModRevision {
		token = own.ModRevision
	}
	c.win(own.CreateRevision, token)
	return token != 0
}

// rewrite makes a transaction that may be applied more than once, until etcd answers it. Repeated says that one try at
// least has an unknown outcome.
func (c *contender) rewrite(ctx context.Context, cmps []*comparison, then, els []*operation) (resp *answer, repeated bool, err error) {
	rpc := func(ctx context.Context) (*answer, error) { return c.lease.txn(ctx, cmps, then, els) }
	first := c.lease.first
	if c.ends.Load() {
		first = min(first, c.lease.validUntil().Until())
	}
	if resp, err = try(ctx, first, rpc); err == nil || isFinal(err) {
		return resp, err != nil, err
	}
	if c.ends.Load() {
		var cancel context.CancelFunc
		ctx, cancel = c.lease.whileValid(ctx)
		defer cancel()
	}
	resp, err = hedge(ctx, c.lease.first, isFinal, rpc, err)
	return resp, true, err
}

// translate says of an error whether the contender is to start over.
func (c *contender) translate(err error) error {
	switch { // for all who hang on the lease
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		c.lease.finish(errLeaseGone)
	case errors.Is(err, errHistoryLost):
		c.lease.finish(errHistoryLost)
	}
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound), errors.Is(err, errLeaseGone), errors.Is(err, errHistoryLost):
		return fmt.Errorf("%w: %w", errStartOver, err)
	case isRefused(err):
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
