package wire

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/record"
)

// What transactions are made of. They are sent as they are: with the client's own types an
// uncontended lock takes a twentieth longer.
type (
	operation  = pb.RequestOp
	comparison = pb.Compare
)

func get(key string) *operation { return ranged(&pb.RangeRequest{Key: []byte(key)}) }

// getAt gets a key as it was in a revision.
func getAt(key string, revision int64) *operation {
	return ranged(&pb.RangeRequest{Key: []byte(key), Revision: revision})
}

// exists asks for no more than whether a key is there.
func exists(key string) *operation {
	return ranged(&pb.RangeRequest{Key: []byte(key), CountOnly: true})
}

// existBelow counts the keys below a lock's K/.
func existBelow(lock string) *operation {
	r := below(lock)
	r.CountOnly = true
	return ranged(r)
}

// shortLine gets the places in a range of linked ones, that many at most, and shows whether
// something is there in others.
func shortLine(most int64, linked *pb.RangeRequest, others ...*pb.RangeRequest) []*operation {
	linked.Limit = most
	ops := []*operation{ranged(linked)}
	for _, r := range others {
		r.Limit, r.KeysOnly = 1, true
		ops = append(ops, ranged(r))
	}
	return ops
}

// newestOf gets the newest of the keys in a range that are older than a revision. Etcd sorts all of
// them for that.
func newestOf(r *pb.RangeRequest, than int64) *operation {
	r.MaxCreateRevision, r.Limit = than-1, 1
	r.SortOrder, r.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_CREATE
	return ranged(r)
}

// oldestOf gets the oldest of the keys in a range, several, as some may not be what they look like.
func oldestOf(r *pb.RangeRequest) *operation {
	r.Limit = 16
	r.SortOrder, r.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_CREATE
	return ranged(r)
}

// namesBelow gets the names of all keys below a lock's K/ that are older than a revision. Etcd 3.7
// does not tell their leases with them.
func namesBelow(lock string, than int64) *operation {
	r := below(lock)
	r.MaxCreateRevision, r.KeysOnly = than-1, true
	return ranged(r)
}

func below(lock string) *pb.RangeRequest {
	return between(Prefix(lock), clientv3.GetPrefixRangeEnd(Prefix(lock)))
}

// strangers are the keys below a lock's K/ that no linked place can have.
func strangers(lock string) []*pb.RangeRequest {
	from, to := LinkedRange(lock)
	return []*pb.RangeRequest{between(Prefix(lock), from), between(to, clientv3.GetPrefixRangeEnd(Prefix(lock)))}
}

// unshared are the keys below a lock's K/ that a place of somebody who does not share it can have.
func unshared(lock string) *pb.RangeRequest { return between(Prefix(lock), Prefix(lock)+sharing) }

// shared are the places of those who share a lock.
func shared(lock string) *pb.RangeRequest {
	from := Prefix(lock) + sharing
	return between(from, clientv3.GetPrefixRangeEnd(from))
}

// slotted are all keys of semaphores below a lock's K/, of all sizes.
func slotted(lock string) *pb.RangeRequest { return between(SemaphoresRange(lock)) }

// ownSlots are all keys of a semaphore, and others the keys below a lock's K/ that are not.
func ownSlots(lock string, slots int) (own *pb.RangeRequest, others []*pb.RangeRequest) {
	from, to := semaphore(lock, slots)+slotMark, clientv3.GetPrefixRangeEnd(semaphore(lock, slots)+placeMark)
	return between(from, to), []*pb.RangeRequest{between(Prefix(lock), from), between(to, clientv3.GetPrefixRangeEnd(Prefix(lock)))}
}

func between(from, to string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(from), RangeEnd: []byte(to)}
}

func ranged(r *pb.RangeRequest) *operation {
	return &operation{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func put(key, value string, lease clientv3.LeaseID) *operation {
	return putting(&pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: int64(lease)})
}

// rewrite writes a key as it is, value and lease: only its revision changes.
func rewrite(key string) *operation {
	return putting(&pb.PutRequest{Key: []byte(key), IgnoreValue: true, IgnoreLease: true})
}

func putting(r *pb.PutRequest) *operation {
	return &operation{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func remove(key string) *operation {
	return &operation{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// nested is a transaction in a transaction.
func nested(cmps []*comparison, then, els []*operation) *operation {
	return &operation{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Compare: cmps, Success: then, Failure: els}}}
}

func createIs(key string, revision int64) *comparison {
	return &comparison{Key: []byte(key), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: revision}}
}

func modIs(key string, revision int64) *comparison {
	return &comparison{Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}}
}

// waitsSince compares true if a place is there, was created before a revision, and has no slot. Of
// a key that is absent no comparison of values is true.
func waitsSince(place string, before int64) []*comparison {
	isOlder, hasNoSlot := createIs(place, before), valueIs(place, record.LastSeat)
	isOlder.Result, hasNoSlot.Result = pb.Compare_LESS, pb.Compare_GREATER
	return []*comparison{isOlder, hasNoSlot}
}

func valueIs(key, value string) *comparison {
	return &comparison{Key: []byte(key), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte(value)}}
}

// nobody compares true when neither the lock's key nor anything below it is there. The cheap
// comparison comes first.
func nobody(lock string) []*comparison {
	return []*comparison{createIs(lock, 0), noneIn(below(lock))}
}

// onlyLinked compares true if nothing is below K/ but what may be a linked place.
func onlyLinked(lock string) (cmps []*comparison) {
	for _, r := range strangers(lock) {
		cmps = append(cmps, noneIn(r))
	}
	return cmps
}

// nobodyShares compares true if nobody shares the lock, or waits for that.
func nobodyShares(lock string) *comparison { return noneIn(shared(lock)) }

// noneSharesBefore compares true if somebody does, and all their places were created in a revision
// or later. Etcd goes through all of them.
func noneSharesBefore(lock string, revision int64) *comparison {
	return noneCreatedBefore(shared(lock), revision)
}

func noneIn(r *pb.RangeRequest) *comparison {
	c := createIs(string(r.Key), 0)
	c.RangeEnd = r.RangeEnd
	return c
}

// noneOlder compares true if all that is below K/ was created in a revision or later.
func noneOlder(lock string, revision int64) *comparison {
	return noneCreatedBefore(below(lock), revision)
}

// noneCreatedBefore compares true if there are keys in a range, all of them created in a revision
// or later.
func noneCreatedBefore(r *pb.RangeRequest, revision int64) *comparison {
	c := noneIn(r)
	c.Result, c.TargetUnion = pb.Compare_GREATER, &pb.Compare_CreateRevision{CreateRevision: revision - 1}
	return c
}

// maxRevision is newer than all revisions.
const maxRevision = math.MaxInt64

// Got returns the key that the i-th operation of a transaction got, nil if it is absent, or if the
// operation gets none.
func Got(resp *pb.TxnResponse, i int) *mvccpb.KeyValue {
	if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}
