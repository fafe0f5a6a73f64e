package smalletcd

import (
	"bytes"
	"cmp"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Txn executes a transaction. All comparisons, nested ones as well, are made before the first
// operation is executed. The operations follow one by one, and each reads what those before it have
// written. All that they write has one revision; a transaction that writes nothing takes none.
//
// It applies nothing, and returns the error that etcd's client returns, if
//
//   - the request is malformed, or puts a key twice: rpctypes.ErrDuplicateKey and others,
//   - rpctypes.ErrLeaseNotFound: a put names a lease that does not exist,
//   - rpctypes.ErrKeyNotFound: a put keeps the value or the lease of a key that was absent before
//     the transaction,
//   - rpctypes.ErrCompacted, rpctypes.ErrFutureRev: a read names a revision that is compacted, or
//     newer than that before the transaction.
//
// Only operations in the branches that are taken are looked at for the last three.
func (s *Store) Txn(req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := checkForm(req); err != nil {
		return nil, err
	}
	var few [8]bool
	e := execution{Store: s, begin: s.revision, taken: few[:0]}
	e.now = &pb.ResponseHeader{Revision: s.revision}
	if err := e.decide(req); err != nil {
		return nil, err
	}
	resp := e.execute(req)
	resp.Header.Revision = s.revision
	return resp, nil
}

// An execution is a transaction that is being executed. The store's revision is the transaction's
// from its first write on.
type execution struct {
	*Store
	begin int64              // the revision before the transaction
	now   *pb.ResponseHeader // of operations, as of the store's revision
	taken []bool             // whether the comparisons hold, of each transaction in its order
	at    int                // the next of them
}

func branch(req *pb.TxnRequest, succeeded bool) []*pb.RequestOp {
	if succeeded {
		return req.Success
	}
	return req.Failure
}

// decide makes the comparisons, and returns the error that one of the operations to execute has.
func (e *execution) decide(req *pb.TxnRequest) error {
	succeeded := e.hold(req.Compare)
	e.taken = append(e.taken, succeeded)
	for _, op := range branch(req, succeeded) {
		var err error
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			err = e.readable(op.RequestRange.Revision)
		case *pb.RequestOp_RequestPut:
			err = e.puttable(op.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = e.decide(op.RequestTxn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *execution) puttable(r *pb.PutRequest) error {
	if r.Lease != 0 && !e.HasLease(r.Lease) {
		return rpctypes.ErrLeaseNotFound
	}
	if r.IgnoreValue || r.IgnoreLease {
		if _, found := find(e.keys, r.Key); !found {
			return rpctypes.ErrKeyNotFound
		}
	}
	return nil
}

// execute executes the operations of the branch that decide has found.
func (e *execution) execute(req *pb.TxnRequest) *pb.TxnResponse {
	succeeded := e.taken[e.at]
	e.at++
	ops := branch(req, succeeded)
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: succeeded}
	if len(ops) == 0 {
		return resp
	}
	resp.Responses = make([]*pb.ResponseOp, len(ops))
	for i, op := range ops {
		resp.Responses[i] = e.executeOp(op)
	}
	return resp
}

func (e *execution) executeOp(op *pb.RequestOp) *pb.ResponseOp {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		r := e.read(op.RequestRange)
		r.Header = e.now
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: r}}
	case *pb.RequestOp_RequestPut:
		r := e.executePut(op.RequestPut)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: r}}
	case *pb.RequestOp_RequestDeleteRange:
		r := e.executeDelete(op.RequestDeleteRange)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}}
	case *pb.RequestOp_RequestTxn:
		r := e.execute(op.RequestTxn)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: r}}
	}
	panic("smalletcd: an operation of an unknown kind")
}

// write begins a write. The first one takes the next revision.
func (e *execution) write() int64 {
	if e.revision == e.begin {
		e.revision++
		e.now = &pb.ResponseHeader{Revision: e.revision}
	}
	return e.revision
}

func (e *execution) executePut(r *pb.PutRequest) *pb.PutResponse {
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease}
	resp := &pb.PutResponse{}
	if r.IgnoreValue || r.IgnoreLease || r.PrevKv {
		before := e.previous(r)
		if r.IgnoreValue {
			kv.Value = before.Value
		}
		if r.IgnoreLease {
			kv.Lease = before.Lease
		}
		if r.PrevKv {
			resp.PrevKv = before
		}
	}
	e.put(kv, e.write())
	resp.Header = e.now
	return resp
}

// previous returns what is there before a put, nil if nothing is.
func (e *execution) previous(r *pb.PutRequest) *mvccpb.KeyValue {
	i, found := find(e.keys, r.Key)
	switch {
	case found:
		return e.keys[i]
	case r.IgnoreValue || r.IgnoreLease: // see covers
		panic("smalletcd: etcd crashes: a put keeps what the same transaction has deleted")
	}
	return nil
}

func (e *execution) executeDelete(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	from, to := within(e.keys, r.Key, r.RangeEnd)
	resp := &pb.DeleteRangeResponse{Deleted: int64(to - from)}
	if r.PrevKv {
		resp.PrevKvs = append(resp.PrevKvs, e.keys[from:to]...)
	}
	if from < to {
		e.remove(from, to, e.write())
	}
	resp.Header = e.now
	return resp
}

// hold reports whether all comparisons hold.
func (e *execution) hold(cmps []*pb.Compare) bool {
	for _, c := range cmps {
		if !e.holds(c) {
			return false
		}
	}
	return true
}

// absent is what etcd compares with if there is no key.
var absent mvccpb.KeyValue

// holds reports whether a comparison holds of all keys that it names. Where no key is there, of one
// or of a range, it is made with zeros: it holds only if it holds of those. A comparison of values
// does not hold then.
func (e *execution) holds(c *pb.Compare) bool {
	if e.unversioned && c.Target == pb.Compare_VERSION {
		panic("smalletcd: a comparison of versions in a store without versions")
	}
	from, to := within(e.keys, c.Key, c.RangeEnd)
	if from == to {
		return c.Target != pb.Compare_VALUE && satisfies(&absent, c)
	}
	for _, kv := range e.keys[from:to] {
		if !satisfies(kv, c) {
			return false
		}
	}
	return true
}

func satisfies(kv *mvccpb.KeyValue, c *pb.Compare) bool {
	var order int
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	default:
		panic(fmt.Sprintf("smalletcd: a comparison of %v", c.Target))
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	panic(fmt.Sprintf("smalletcd: a comparison with the result %v", c.Result))
}
