package smalletcd_test

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

func write(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Success: ops} }

func rangeOp(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func putting(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func putOp(key, value string, lease int64) *pb.RequestOp {
	return putting(&pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease})
}

func deleteOp(key, end string) *pb.RequestOp {
	r := &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func nestedOp(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

// mutex returns what etcd's own Mutex sends: to join, to look who is before it, and to leave.
func (g *generator) mutex() *pb.TxnRequest {
	lock, of := pick(g, locks...), pick(g, leases...)
	key, lease := wire.MutexPlace(lock, of), int64(of)
	below := func() *pb.RangeRequest {
		end := clientv3.GetPrefixRangeEnd(wire.Prefix(lock))
		return &pb.RangeRequest{
			Key: []byte(wire.Prefix(lock)), RangeEnd: []byte(end),
			Limit: 1, SortTarget: pb.RangeRequest_CREATE,
		}
	}
	switch g.rand.IntN(4) {
	case 0:
		return write(deleteOp(key, ""))
	case 1:
		before := below()
		before.SortOrder, before.MaxCreateRevision = pb.RangeRequest_DESCEND, g.get(key).CreateRevision-1
		return write(rangeOp(before))
	}
	first := below()
	first.SortOrder = pb.RangeRequest_ASCEND
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte(key), Target: pb.Compare_CREATE}},
		Success: []*pb.RequestOp{putOp(key, "", lease), rangeOp(first)},
		Failure: []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: []byte(key)}), rangeOp(first)},
	}
}

// operator returns what somebody does by hand: one put or one deletion.
func (g *generator) operator() *pb.TxnRequest {
	switch g.rand.IntN(5) {
	case 0:
		return write(deleteOp(g.key(), ""))
	case 1:
		return write(deleteOp(g.interval()))
	case 2:
		touch := &pb.PutRequest{Key: []byte(g.key()), IgnoreValue: true, IgnoreLease: g.chance(50)}
		return write(putting(touch))
	}
	return write(g.putOp(true))
}

// key returns a key that locks use, or another one near them.
func (g *generator) key() string {
	lock := pick(g, locks...)
	switch g.rand.IntN(6) {
	case 0:
		return lock
	case 1:
		return wire.Tail(lock)
	case 2:
		return wire.MutexPlace(lock, pick(g, leases...))
	case 3:
		return pick(g, "k/2024", "k/", "k0", "a", "z", semaphore, wire.Slot(semaphore, slots, 0), g.sitter().Key)
	}
	return g.place(lock).Key
}

// interval returns a range of keys; the end is empty if it is one key.
func (g *generator) interval() (key, end string) {
	lock := pick(g, locks...)
	switch g.rand.IntN(8) {
	case 0:
		return wire.LinkedRange(lock)
	case 1:
		return "k", clientv3.GetPrefixRangeEnd("k")
	case 2:
		return g.key(), g.key() // the end may be before the key
	case 3:
		return g.key(), "\x00"
	case 4:
		return g.key(), ""
	case 5:
		return wire.SlotPlaces(semaphore, slots)
	case 6:
		return wire.SlotsRange(semaphore, slots)
	}
	return wire.Prefix(lock), clientv3.GetPrefixRangeEnd(wire.Prefix(lock))
}

// readOp reads a range in any way that etcd has.
func (g *generator) readOp(past bool) *pb.RequestOp {
	key, end := g.interval()
	r := &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
	if past {
		r.Revision = g.anyRevision()
	}
	r.CountOnly, r.KeysOnly = g.chance(10), g.chance(30)
	if g.chance(40) {
		r.Limit = 1 + g.rand.Int64N(3)
	}
	if g.chance(50) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.rand.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.rand.IntN(5))
	}
	bounds := []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision}
	for _, bound := range bounds {
		if g.chance(10) {
			*bound = g.anyRevision()
		}
	}
	return rangeOp(r)
}

// putOp puts a key. Keeping is whether it may keep the value or the lease.
func (g *generator) putOp(keeping bool) *pb.RequestOp {
	r := &pb.PutRequest{Key: []byte(g.key()), PrevKv: g.chance(20)}
	r.IgnoreValue, r.IgnoreLease = keeping && g.chance(15), keeping && g.chance(15)
	if !r.IgnoreValue && g.chance(80) {
		r.Value = []byte(pick(g, "v", "w", "value", record.Seated("{}", 1)))
	}
	if !r.IgnoreLease && g.chance(50) {
		r.Lease = int64(pick(g, leases...))
	}
	return putting(r)
}

func (g *generator) compare() *pb.Compare {
	key, end := g.interval()
	kv := g.get(key)
	c := &pb.Compare{Key: []byte(key), RangeEnd: []byte(end)}
	c.Target, c.Result = pb.Compare_CompareTarget(g.rand.IntN(5)), pb.Compare_CompareResult(g.rand.IntN(4))
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.rand.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.revision(kv.CreateRevision)}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision(kv.ModRevision)}
	case pb.Compare_VALUE:
		value := kv.Value
		if g.chance(30) {
			value = []byte(pick(g, "v", "w", "", `{"slot"::`))
		}
		c.TargetUnion = &pb.Compare_Value{Value: value}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: pick(g, kv.Lease, int64(pick(g, leases...)))}
	}
	return c
}

// anything returns a transaction of any form, with others in it to some depth.
func (g *generator) anything(depth int) *pb.TxnRequest {
	// Etcd takes a put of a key that the transaction deletes with a range without end. If the put
	// keeps the value, etcd crashes.
	return g.anythingOf(depth, g.chance(20))
}

func (g *generator) anythingOf(depth int, endless bool) *pb.TxnRequest {
	txn := &pb.TxnRequest{}
	for range g.rand.IntN(3) {
		txn.Compare = append(txn.Compare, g.compare())
	}
	for _, ops := range []*[]*pb.RequestOp{&txn.Success, &txn.Failure} {
		for range g.rand.IntN(4) {
			*ops = append(*ops, g.op(depth, endless))
		}
	}
	return txn
}

func (g *generator) op(depth int, endless bool) *pb.RequestOp {
	switch n := g.rand.IntN(10); {
	case n < 3 && depth > 0:
		return nestedOp(g.anythingOf(depth-1, endless))
	case n < 5:
		return g.readOp(g.chance(20))
	case n < 8:
		return g.putOp(!endless)
	}
	key, end := g.interval()
	if end == "\x00" && !endless {
		end = ""
	}
	op := deleteOp(key, end)
	op.GetRequestDeleteRange().PrevKv = g.chance(20)
	return op
}

// malformed returns a transaction that etcd refuses whatever there is.
func (g *generator) malformed() *pb.TxnRequest {
	get := rangeOp(&pb.RangeRequest{Key: []byte("k")})
	most := slices.Repeat([]*pb.RequestOp{get}, 128)
	return pick(g,
		write(append(most, get)...),
		write(append(most[1:], nestedOp(write(get)))...),
		write(putOp("", "", 0)),
		write(deleteOp("", "")),
		write(rangeOp(&pb.RangeRequest{})),
		write(rangeOp(&pb.RangeRequest{Key: []byte("k"), SortOrder: 3})),
		write(rangeOp(&pb.RangeRequest{Key: []byte("k"), SortTarget: 5})),
		write(putting(&pb.PutRequest{Key: []byte("k"), Value: []byte("v"), IgnoreValue: true})),
		write(putting(&pb.PutRequest{Key: []byte("k"), Lease: 1, IgnoreLease: true})),
		write(&pb.RequestOp{}),
		&pb.TxnRequest{Compare: []*pb.Compare{{}}},
		write(putOp("k", "", 0), nestedOp(write(deleteOp("j", "l")))),
	)
}
