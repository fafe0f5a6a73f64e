package smalletcd

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// mostOps is how many comparisons or operations etcd takes in a transaction by default.
const mostOps = 128

// checkForm returns the error with which etcd refuses a transaction whatever there is in etcd.
func checkForm(req *pb.TxnRequest) error {
	if err := checkTxn(req, mostOps); err != nil {
		return err
	}
	if _, _, err := checkWrites(req.Success); err != nil {
		return err
	}
	_, _, err := checkWrites(req.Failure)
	return err
}

// checkTxn checks each operation by itself. What is nested may have the fewer operations the more
// there are around it.
func checkTxn(req *pb.TxnRequest, most int) error {
	ops := max(len(req.Compare), len(req.Success), len(req.Failure))
	if ops > most {
		return rpctypes.ErrTooManyOps
	}
	for _, c := range req.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrEmptyKey
		}
	}
	for _, op := range req.Success {
		if err := checkOp(op, most-ops); err != nil {
			return err
		}
	}
	for _, op := range req.Failure {
		if err := checkOp(op, most-ops); err != nil {
			return err
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, most int) error {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(op.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(op.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		if len(op.RequestDeleteRange.Key) == 0 {
			return rpctypes.ErrEmptyKey
		}
		return nil
	case *pb.RequestOp_RequestTxn:
		return checkTxn(op.RequestTxn, most)
	}
	return rpctypes.ErrKeyNotFound
}

func checkRange(r *pb.RangeRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrEmptyKey
	case r.SortOrder < pb.RangeRequest_NONE || r.SortOrder > pb.RangeRequest_DESCEND,
		r.SortTarget < pb.RangeRequest_KEY || r.SortTarget > pb.RangeRequest_VALUE:
		return rpctypes.ErrInvalidSortOption
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrEmptyKey
	case r.IgnoreValue && len(r.Value) > 0:
		return rpctypes.ErrValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrLeaseProvided
	}
	return nil
}

// A span is the keys that a deletion names.
type span struct{ key, end []byte }

// covers reports whether a span has a key. A span whose end is a zero byte, which deletes all keys
// from one on, covers none: etcd takes the byte literally here. So it accepts a put behind such a
// deletion, and crashes if the put keeps the value or the lease of the key.
func (d span) covers(key []byte) bool {
	if len(d.end) == 0 {
		return bytes.Equal(d.key, key)
	}
	return bytes.Compare(d.key, key) <= 0 && bytes.Compare(key, d.end) < 0
}

// checkWrites returns the keys that operations put and the spans that they delete, those of nested
// transactions included, whatever their comparisons are. It returns rpctypes.ErrDuplicateKey if a
// key is put twice, or is put and deleted. There are two exceptions: both branches of a transaction
// may put the same key, and a nested transaction may delete what one before it has put.
func checkWrites(ops []*pb.RequestOp) (puts [][]byte, dels []span, err error) {
	for _, op := range ops {
		if op, ok := op.Request.(*pb.RequestOp_RequestDeleteRange); ok {
			dels = append(dels, span{op.RequestDeleteRange.Key, op.RequestDeleteRange.RangeEnd})
		}
	}
	for _, op := range ops {
		op, ok := op.Request.(*pb.RequestOp_RequestTxn)
		if !ok {
			continue
		}
		thenPuts, thenDels, err := checkWrites(op.RequestTxn.Success)
		if err != nil {
			return nil, nil, err
		}
		elsePuts, elseDels, err := checkWrites(op.RequestTxn.Failure)
		if err != nil {
			return nil, nil, err
		}
		if clash(thenPuts, puts, dels) || clash(elsePuts, puts, dels) {
			return nil, nil, rpctypes.ErrDuplicateKey
		}
		puts = append(append(puts, thenPuts...), elsePuts...)
		dels = append(append(dels, thenDels...), elseDels...)
	}
	for _, op := range ops {
		op, ok := op.Request.(*pb.RequestOp_RequestPut)
		if !ok {
			continue
		}
		if key := op.RequestPut.Key; clashes(key, puts, dels) {
			return nil, nil, rpctypes.ErrDuplicateKey
		}
		puts = append(puts, op.RequestPut.Key)
	}
	return puts, dels, nil
}

func clash(keys, puts [][]byte, dels []span) bool {
	for _, key := range keys {
		if clashes(key, puts, dels) {
			return true
		}
	}
	return false
}

func clashes(key []byte, puts [][]byte, dels []span) bool {
	for _, put := range puts {
		if bytes.Equal(put, key) {
			return true
		}
	}
	for _, d := range dels {
		if d.covers(key) {
			return true
		}
	}
	return false
}
