package holding

import (
	"context"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/lease"
)

// sharedLease is the remover of a holding whose lease serves others: its keys are deleted, for as
// long as it takes.
type sharedLease struct{ *Holding }

func (h sharedLease) giveBack(ctx context.Context, _ bool) (spare *lease.Lease, err error) {
	return nil, h.outcome(h.Release(ctx))
}

func (h sharedLease) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit)
	defer cancel()
	h.Leave(ctx)
}

func (h sharedLease) drop(ctx context.Context) {
	if h.Lease.Err() != nil { // nothing is renewed that could be deleted
		ownLease(h).drop(ctx)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, debts.Limit)
	defer cancel()
	h.Leave(ctx)
}

// clear has it done in the background.
func (h sharedLease) clear(context.Context) error {
	h.Leave(ended)
	return nil
}

func (h sharedLease) expired() {}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
