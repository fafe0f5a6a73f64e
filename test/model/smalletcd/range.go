package smalletcd

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// read answers a range request, without the header.
func (s *Store) read(r *pb.RangeRequest) *pb.RangeResponse {
	kvs := s.keys
	if r.Revision > 0 && r.Revision < s.revision {
		kvs = s.keysAt(r.Revision)
	}
	from, to := within(kvs, r.Key, r.RangeEnd)
	// Etcd counts all keys of the range, also those that the limit or a filter leaves out.
	resp := &pb.RangeResponse{Count: int64(to - from)}
	if r.CountOnly || from == to {
		return resp
	}
	kvs = s.choose(r, slices.Clone(kvs[from:to]))
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	if r.KeysOnly {
		for i, kv := range kvs {
			kvs[i] = named(kv, r.SortTarget)
		}
	}
	resp.Kvs = kvs
	return resp
}

// choose filters keys and sorts them. It may overwrite them.
func (s *Store) choose(r *pb.RangeRequest, kvs []*mvccpb.KeyValue) []*mvccpb.KeyValue {
	sorted := r.SortOrder == pb.RangeRequest_NONE ||
		r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	filtered := r.MinModRevision != 0 || r.MaxModRevision != 0 ||
		r.MinCreateRevision != 0 || r.MaxCreateRevision != 0
	// Without an order etcd takes the first keys by name, one more than the limit, and sorts these
	// if it has been told by what.
	if sorted && !filtered && r.Limit > 0 && r.Limit < math.MaxInt64 && int64(len(kvs)) > r.Limit {
		kvs = kvs[:r.Limit+1]
	}
	if filtered {
		kvs = slices.DeleteFunc(kvs, func(kv *mvccpb.KeyValue) bool {
			return r.MaxModRevision != 0 && kv.ModRevision > r.MaxModRevision ||
				r.MinModRevision != 0 && kv.ModRevision < r.MinModRevision ||
				r.MaxCreateRevision != 0 && kv.CreateRevision > r.MaxCreateRevision ||
				r.MinCreateRevision != 0 && kv.CreateRevision < r.MinCreateRevision
		})
	}
	if s.unversioned && r.SortTarget == pb.RangeRequest_VERSION {
		panic("smalletcd: keys sorted by version in a store without versions")
	}
	if r.SortTarget == pb.RangeRequest_KEY && sorted {
		return kvs
	}
	// Etcd sorts with package sort. That and this are one algorithm: equal keys come in one order.
	order := orderOf(r.SortTarget)
	if r.SortOrder == pb.RangeRequest_DESCEND {
		slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return order(b, a) })
	} else {
		slices.SortFunc(kvs, order)
	}
	return kvs
}

func orderOf(target pb.RangeRequest_SortTarget) func(a, b *mvccpb.KeyValue) int {
	switch target {
	case pb.RangeRequest_VERSION:
		return func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.Version, b.Version) }
	case pb.RangeRequest_CREATE:
		return func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) }
	case pb.RangeRequest_MOD:
		return func(a, b *mvccpb.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) }
	case pb.RangeRequest_VALUE:
		return func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }
	}
	return func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) }
}

// named returns a key without its value. Etcd 3.7 takes it from its index, which has no leases,
// unless it needs the values to sort by them.
func named(kv *mvccpb.KeyValue, target pb.RangeRequest_SortTarget) *mvccpb.KeyValue {
	name := &mvccpb.KeyValue{
		Key: kv.Key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version,
	}
	if target == pb.RangeRequest_VALUE {
		name.Lease = kv.Lease
	}
	return name
}
