package world

import (
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A mutation leaves out one comparison or one operation of a transaction.
type mutation struct {
	name   string
	kind   string
	nested bool // in the transaction that is nested in the other branch
	part   int  // 0: comparisons, 1: operations
	index  int
}

func (m mutation) apply(req *pb.TxnRequest) *pb.TxnRequest {
	if wire.Kind(req) != m.kind {
		return req
	}
	req = proto.Clone(req).(*pb.TxnRequest)
	at := req
	if m.nested {
		if len(req.Failure) == 0 || req.Failure[0].GetRequestTxn() == nil {
			return req
		}
		at = req.Failure[0].GetRequestTxn()
	}
	switch {
	case m.part == 0 && m.index < len(at.Compare):
		at.Compare = slices.Delete(at.Compare, m.index, m.index+1)
	case m.part == 1 && m.index < len(at.Success):
		at.Success = slices.Delete(at.Success, m.index, m.index+1)
	}
	return req
}

// isWrite reports whether an operation writes: without a read the answer could not be understood.
func isWrite(op *pb.RequestOp) bool { return op.GetRequestRange() == nil }

// mutations returns one for each comparison and each write of each transaction.
func mutations() (all []mutation) {
	seen := make(map[string]bool)
	add := func(m mutation) {
		m.name = fmt.Sprintf("%s nested=%v part=%d index=%d", m.kind, m.nested, m.part, m.index)
		if !seen[m.name] {
			seen[m.name] = true
			all = append(all, m)
		}
	}
	for _, s := range wire.Samples() {
		txns := map[bool]*pb.TxnRequest{false: s.Txn}
		if len(s.Txn.Failure) > 0 && s.Txn.Failure[0].GetRequestTxn() != nil {
			txns[true] = s.Txn.Failure[0].GetRequestTxn()
		}
		for nested, txn := range txns {
			for i := range txn.Compare {
				add(mutation{kind: s.Name, nested: nested, part: 0, index: i})
			}
			for i, op := range txn.Success {
				if isWrite(op) {
					add(mutation{kind: s.Name, nested: nested, part: 1, index: i})
				}
			}
		}
	}
	return all
}

// notCaught are the mutations that the world does not notice yet: it has no place at which they
// matter, or only something becomes slower. Each has to be caught, or to be given a reason.
var notCaught = []string{
	"AcquireIfFree nested=true part=0 index=0",
	"Acquire nested=true part=1 index=3",
	"ClaimBehindHolder nested=false part=0 index=0",
	"ClaimBehindHolder nested=false part=0 index=3",
	"Pass nested=false part=0 index=1",
	"Pass nested=false part=0 index=4",
	"LeaveLost nested=false part=1 index=3",
	"Leave nested=false part=1 index=1",
	"Remove nested=false part=1 index=1",
	"RemoveTail nested=false part=0 index=0",
	"RemoveTail nested=false part=1 index=0",
}

// TestMutationsAreCaught: what a transaction compares and writes is needed.
func TestMutationsAreCaught(t *testing.T) {
	for _, m := range mutations() {
		if slices.Contains(notCaught, m.name) {
			continue
		}
		caught := false
		for seed := uint64(0); seed < 8000 && !caught; seed++ {
			_, _, err := runWith(allCasts[seed%uint64(len(allCasts))], int(seed%4), seed, m.apply)
			caught = err != nil
		}
		if !caught {
			t.Errorf("%s is not caught", m.name)
		}
	}
}
