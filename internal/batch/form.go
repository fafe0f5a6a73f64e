package batch

import (
	"cmp"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/wire"
)

// A subject is what one transaction at most of a batch is about: a lock, or this request itself.
type subject struct {
	lock string
	req  *pb.TxnRequest
}

// A form is how transactions go together.
type form interface {
	// of returns what transactions must not have in common.
	of(lock string, req *pb.TxnRequest) subject
	// with returns how many operations a batch has with a transaction of so many.
	with(b *batch, ops int) int
	join(each []*pb.TxnRequest) *pb.TxnRequest
	divide(each []*pb.TxnRequest, resp *pb.TxnResponse) []*pb.TxnResponse
}

// Writes is the form of what writes: as transactions within one, each of which counts, and of what
// is in them the largest one.
type Writes struct{}

func (Writes) of(lock string, _ *pb.TxnRequest) subject { return subject{lock: lock} }

func (Writes) with(b *batch, ops int) int {
	return len(b.all) + 1 + max(b.ops-len(b.all), ops)
}

func (Writes) join(each []*pb.TxnRequest) *pb.TxnRequest { return wire.Batch(each) }

func (Writes) divide(_ []*pb.TxnRequest, resp *pb.TxnResponse) []*pb.TxnResponse {
	return wire.BatchAnswers(resp)
}

// Reads is the form of reads: one behind the other. As a transaction within another one etcd would
// commit them like a write.
type Reads struct{}

func (Reads) of(_ string, req *pb.TxnRequest) subject { return subject{req: req} }

func (Reads) with(b *batch, ops int) int { return b.ops + max(ops, 1) }

func (Reads) join(each []*pb.TxnRequest) *pb.TxnRequest { return wire.AcquireAllIfFree(each) }

func (Reads) divide(each []*pb.TxnRequest, resp *pb.TxnResponse) (all []*pb.TxnResponse) {
	rest := resp.Responses
	for _, one := range each {
		n := len(one.Success)
		all = append(all, &pb.TxnResponse{Header: resp.Header, Succeeded: true, Responses: rest[:n:n]})
		rest = rest[n:]
	}
	return all
}

// IsRead reports whether a transaction reads some keys, each by its name and as it is now, and does
// nothing else. A range may have an answer of any size, and must not hold others up; the past may
// be compacted, and would have all refused. It returns the first key.
func IsRead(req *pb.TxnRequest) (first string, is bool) {
	for _, op := range req.Success {
		r := op.GetRequestRange()
		if r == nil || r.RangeEnd != nil || r.Revision != 0 {
			return "", false
		}
		first = cmp.Or(first, string(r.Key))
	}
	return first, first != "" && len(req.Compare)+len(req.Failure) == 0
}
