package lease

import (
	"cmp"
	"context"
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

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
		if _, err := r.states(ctx, some, ""); err != nil && !retry.IsRefused(err) {
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

// some reads the states of some members, others each time, and returns one of the answers. If none
// of those may be read, it goes on with the next: a renewal counts with one answer. Members that
// could not be read the last time come last, and are read apart after a renewal that counts. It
// returns nil if there is nothing to read.
func (r reader) some(ctx context.Context) (*pb.TxnResponse, error) {
	var readable, rest []Member
	all, n := r.inTurn()
	for _, m := range all {
		if m.IsUnreadable() {
			rest = append(rest, m)
		} else {
			readable = append(readable, m)
		}
	}
	var denied error
	for _, part := range append(slices.Collect(slices.Chunk(readable, n)), rest[:min(n, len(rest))]) {
		resp, err := r.states(ctx, part, "")
		// A refused token would be refused to each of them, and costs a login each time.
		if resp != nil || err != nil && !retry.IsDenied(err) {
			return resp, err
		}
		denied = cmp.Or(err, denied)
	}
	probe := r.probeKey()
	if denied != nil || probe == "" {
		return nil, denied
	}
	resp, err := r.states(ctx, nil, probe)
	if retry.IsDenied(err) {
		r.forgetProbe(probe)
		return nil, nil
	}
	return resp, err
}

// states reads the states of members in one revision, and has them applied. If that is denied, or
// too much for etcd, it reads less at once: a member that may not be read must not be in the way of
// the others. Any other refusal, as of a token, is one of them all, and costs a login. Where no
// member has a state it reads probe, unless that is empty. It returns one of the answers, nil if
// there is nothing to read.
func (r reader) states(ctx context.Context, some []Member, probe string) (*pb.TxnResponse, error) {
	reads, ops := r.ops(some)
	if len(ops) == 0 && probe != "" {
		ops = wire.ProbeRead(probe).Success
	}
	if len(ops) == 0 {
		return nil, nil
	}
	resp, err := retry.Do(ctx, r.first, IsFinal, func(ctx context.Context) (*pb.TxnResponse, error) {
		return r.Txn(ctx, wire.StateRead(ops)) // not with what others read: validity may hang on it
	})
	switch {
	case err == nil:
		for _, read := range reads {
			read.apply(resp, read.first)
		}
		return resp, nil
	case !retry.IsRefused(err):
		return nil, err
	case len(some) <= 1, !retry.IsDenied(err) && !errors.Is(err, rpctypes.ErrTooManyOps):
		for _, m := range some {
			m.OnUnreadable(err)
		}
		return nil, err
	}
	r.TooMany(err, len(ops))
	var last *pb.TxnResponse
	half := len(some) / 2
	for _, part := range [][]Member{some[:half], some[half:]} {
		resp, failed := r.states(ctx, part, "")
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
func (reader) ops(some []Member) (reads []stateRead, ops []*pb.RequestOp) {
	for _, m := range some {
		if of, apply := m.StateRead(); len(of) > 0 {
			reads = append(reads, stateRead{len(ops), apply})
			ops = append(ops, of...)
		}
	}
	return reads, ops
}
