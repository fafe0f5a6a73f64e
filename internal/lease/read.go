package lease

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A reader reads the states of members.
type reader struct{ *Lease }

// run reads the states that were scheduled.
func (r reader) run(ctx context.Context) {
	for {
		some := r.nextUnread()
		if len(some) == 0 {
			return
		}
		if _, err := r.states(ctx, some); err != nil && !retry.IsRefused(err) {
			r.failed(ctx, err)
			return
		}
	}
}

// A stateRead is the part of a read that belongs to one member.
type stateRead struct {
	first int // operation
	apply func(resp *pb.TxnResponse, n int)
}

// states reads the states of members in one revision, and has them applied. If etcd refuses that,
// it reads less at once: a member that may not be read must not be in the way of the others. It
// returns one of the answers, nil if nothing may be read.
func (r reader) states(ctx context.Context, some []Member) (*pb.TxnResponse, error) {
	reads, ops := r.ops(some)
	if len(ops) == 0 {
		return nil, nil
	}
	resp, err := r.ReadUntil(ctx, IsFinal, wire.StateRead(ops))
	switch {
	case err == nil:
		for _, read := range reads {
			read.apply(resp, read.first)
		}
		return resp, nil
	case !retry.IsRefused(err):
		return nil, err
	case len(some) <= 1:
		for _, m := range some {
			m.OnUnreadable(err)
		}
		return nil, err
	}
	r.TooMany(err, len(ops))
	var last *pb.TxnResponse
	half := len(some) / 2
	for _, part := range [][]Member{some[:half], some[half:]} {
		resp, failed := r.states(ctx, part)
		switch {
		case failed != nil && !retry.IsRefused(failed):
			return nil, failed
		case resp != nil:
			last, err = resp, nil
		}
	}
	return last, err
}

// ops returns the operations that read the states of members.
func (r reader) ops(some []Member) (reads []stateRead, ops []*pb.RequestOp) {
	for _, m := range some {
		if of, apply := m.StateRead(); len(of) > 0 {
			reads = append(reads, stateRead{len(ops), apply})
			ops = append(ops, of...)
		}
	}
	r.members.mu.Lock()
	defer r.members.mu.Unlock()
	if len(ops) == 0 && r.probe != "" {
		ops = wire.ProbeRead(r.probe).Success
	}
	return reads, ops
}
