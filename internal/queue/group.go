package queue

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/asking"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Group is contenders of one shared lease, one for each of several locks. What they ask for first
// goes to etcd as one request.
type Group []*Contender

// Acquire takes all locks with one transaction, or none. The contenders were made with Try. It
// returns an error for each that has not got its lock; then Leave has to be called for all.
func (g Group) Acquire(ctx context.Context) (errs []error) {
	for _, c := range g {
		c.beginAcquire()
	}
	if asked := g.take(); asked != nil {
		g.answer(ctx, asked, g.join)
	}
	errs = make([]error, len(g))
	known := false // somebody is there: the others need not find out
	for i, c := range g {
		if known {
			c.decline()
		}
		c.driveOn(ctx, func() bool {
			c.declineLocked()
			return c.isDecidedLocked()
		})
		errs[i] = c.acquired(ctx)
		known = known || IsBusy(errs[i])
	}
	return errs
}

// Release is that of each of the contenders.
func (g Group) Release(ctx context.Context) (all []Released) {
	for _, c := range g {
		c.beginRelease()
	}
	switch asked := g.take(); {
	case slices.ContainsFunc(asked, func(r message.Request) bool { return !r.Releases() }):
		g.putBack(asked, false) // a lock is lost
	case asked != nil:
		g.answer(ctx, asked, g.batch)
	}
	for _, c := range g {
		all = append(all, c.endRelease(ctx))
	}
	return all
}

// take takes the requests that are to be sent now, one of each contender. It takes none, and
// returns nil, unless there are as many.
func (g Group) take() (asked []message.Request) {
	for i, c := range g {
		c.mu.Lock()
		r := c.driver.takeLocked()
		c.mu.Unlock()
		if r == nil {
			g[:i].putBack(asked, false)
			return nil
		}
		asked = append(asked, *r)
	}
	return asked
}

// putBack has the contenders send the requests themselves. Unclear says that these may have been
// applied.
func (g Group) putBack(asked []message.Request, unclear bool) {
	for i, c := range g {
		c.mu.Lock()
		c.next, c.unclear, c.sending = &asked[i], unclear, false
		c.mu.Unlock()
	}
}

// answer sends requests as one, and tells each contender what came of its own. If etcd refuses them
// as a whole, for what may be the matter with one of them, each contender sends its own. What had
// too many operations once is not sent again under that lease.
func (g Group) answer(ctx context.Context, asked []message.Request,
	send func(ctx context.Context, asked []message.Request) (resps []*pb.TxnResponse, repeated bool, err error)) {
	resps, repeated, err := send(ctx, asked)
	unclear := repeated || retry.IsNoSpace(err)
	if retry.IsRefused(err) && !unclear || lease.IsFinal(err) && asked[0].Releases() {
		g.putBack(asked, unclear)
		return
	}
	for i, c := range g {
		var resp *pb.TxnResponse
		if err == nil {
			resp = resps[i]
		}
		c.answered(ctx, asked[i], c.sender.Answer(asked[i], resp, repeated, err), err)
		c.sent()
	}
}

// join sends requests to join.
func (g Group) join(ctx context.Context, asked []message.Request) (resps []*pb.TxnResponse, repeated bool, err error) {
	var others []*asking.Sender
	for _, c := range g[1:] {
		others = append(others, &c.sender)
	}
	txn := func(again bool) *pb.TxnRequest { return wire.AcquireAllIfFree(g.txns(asked, again)) }
	var resp *pb.TxnResponse
	err = g[0].Lease.Within(wire.Ops(txn(false)), func() (err error) {
		resp, repeated, err = g[0].sender.Join(ctx, txn, others...)
		return err
	})
	if err != nil {
		return nil, repeated, err
	}
	return wire.AcquireAnswers(resp, len(g)), repeated, nil
}

// batch sends requests that may be applied more than once.
func (g Group) batch(ctx context.Context, asked []message.Request) (resps []*pb.TxnResponse, repeated bool, err error) {
	txn, resp := wire.Batch(g.txns(asked, false)), (*pb.TxnResponse)(nil)
	err = g[0].Lease.Within(wire.Ops(txn), func() (err error) {
		resp, repeated, err = g[0].sender.RewriteAll(ctx, txn)
		return err
	})
	if err != nil {
		return nil, repeated, err
	}
	return wire.BatchAnswers(resp), repeated, nil
}

func (g Group) txns(asked []message.Request, again bool) (txns []*pb.TxnRequest) {
	for i, c := range g {
		txns = append(txns, translate.Txn(c.Place, asked[i], again))
	}
	return txns
}

// decline ends a try of which nothing was sent but what was refused.
func (c *Contender) decline() {
	c.mu.Lock()
	c.declineLocked()
	c.unsendLocked()
	c.mu.Unlock()
}

// declineLocked ends a try that wants to join by itself: the lock is free, and others of its group
// are not. It is called with mu locked.
func (c *Contender) declineLocked() {
	if c.next == nil || !c.next.Joins() || c.sending {
		return
	}
	c.next = nil
	c.stepLocked(message.Cancel{})
	c.stepLocked(message.Answer{Outcome: message.Refused}) // as if it had been: nothing is written
	c.settledLocked()
}
