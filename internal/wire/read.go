package wire

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/record"
)

func read(ops ...*operation) *pb.TxnRequest { return txn(nil, ops, nil) }

// OpsOfState is how many operations a StateRead has for each contender, at most.
const OpsOfState = 3

// StateOps reads the state of a contender and, unless it is empty, a key that it waits for.
func StateOps(lock, place, ahead string) []*pb.RequestOp {
	ops := []*operation{get(lock), get(place)}
	if ahead != "" {
		ops = append(ops, get(ahead))
	}
	return ops
}

// StateRead reads the states of several contenders in one revision.
func StateRead(ops []*pb.RequestOp) *pb.TxnRequest { return read(ops...) }

// BusyRead reads K, counts the keys below it, and reads whether one of them is in a line of another
// kind than the place's, or a stranger's. Of a semaphore it gets the slots that are held. Of those
// who have the lock together it gets some, to name them.
func BusyRead(p Place) *pb.TxnRequest {
	ops := []*operation{get(p.Lock), existBelow(p.Lock)}
	others, holders := []*pb.RangeRequest{slotted(p.Lock)}, between(LinkedRange(p.Lock))
	holders.Limit = mostSeen
	if p.Mode.Slots() > 0 {
		holders = between(SlotsRange(p.Lock, p.Mode.Slots()))
		holders.Limit = MostNamed
		_, others = ownSlots(p.Lock, p.Mode.Slots())
		ops = append(ops, p.slotsTaken())
	}
	for _, r := range others {
		r.Limit, r.KeysOnly = 1, true
		ops = append(ops, ranged(r))
	}
	return read(append(ops, ranged(holders))...)
}

// MostNamed is how many of those who have a lock together a Busy names, at most. Whether who shares
// it has it shows in a line of no more than mostSeen.
const MostNamed, mostSeen = 4, 8

// Busy is what a BusyRead has found.
type Busy struct {
	Lock   *mvccpb.KeyValue // nil if it is absent
	Below  int              // keys
	Taken  int              // slots
	Others bool             // of another kind are there, or strangers

	Holders []string // the ids of some who share the lock, or have its slots
	More    bool     // of them are there
}

// BusyOf returns what a BusyRead has found.
func BusyOf(p Place, resp *pb.TxnResponse) Busy {
	b := Busy{Lock: Got(resp, 0), Below: int(CountOf(resp, 1))}
	first := 2
	if p.Mode.Slots() > 0 {
		b.Taken, first = len(KeysOf(resp, 2)), 3
	}
	last := len(resp.Responses) - 1
	for i := first; i < last; i++ {
		b.Others = b.Others || Got(resp, i) != nil
	}
	b.name(p, KeysOf(resp, last))
	return b
}

// name names some who have the lock together: those who have slots, or who share it before anybody
// else stands in line. The latter it does only if it has seen all that is below K.
func (b *Busy) name(p Place, seen []*mvccpb.KeyValue) {
	if p.Mode.Slots() > 0 {
		for _, slot := range seen {
			b.Holders = append(b.Holders, record.Shown(slot.Value))
		}
		b.More = b.Taken > len(seen)
		return
	}
	if b.Lock != nil || len(seen) < b.Below {
		return
	}
	for _, place := range Places(p.Lock, seen) {
		r, err := record.Parse(place.Value)
		switch {
		case err != nil, !IsShared(p.Lock, place):
			return
		case len(b.Holders) == MostNamed:
			b.More = true
			return
		}
		b.Holders = append(b.Holders, r.ID)
	}
}

// KeyRead reads K, or any other key.
func KeyRead(keys ...string) *pb.TxnRequest {
	ops := make([]*operation, len(keys))
	for i, key := range keys {
		ops[i] = get(key)
	}
	return read(ops...)
}

// ProbeRead reads nothing of a key but whether it exists.
func ProbeRead(key string) *pb.TxnRequest { return read(exists(key)) }

// A line that is read whole has no more than ShortLine places.
const ShortLine = 32

// LineRead reads K, the place, and a short line.
func LineRead(p Place) *pb.TxnRequest {
	linked, others := between(LinkedRange(p.Lock)), strangers(p.Lock)
	return read(append(p.state(), shortLine(ShortLine, linked, others...)...)...)
}

// SharedLineRead is LineRead for one who shares the lock: it leaves out the others who do.
func SharedLineRead(p Place) *pb.TxnRequest {
	linked, stranger := between(LinkedRange(p.Lock)), strangers(p.Lock)[0]
	linked.RangeEnd = unshared(p.Lock).RangeEnd
	return read(append(p.state(), shortLine(ShortLine, linked, stranger)...)...)
}

// LineOf returns the places that a LineRead has found. It is not ok if there are more of them, or a
// stranger's.
func LineOf(resp *pb.TxnResponse) (kvs []*mvccpb.KeyValue, ok bool) {
	linked := resp.Responses[2].GetResponseRange()
	ok = !linked.More
	for i := 3; i < len(resp.Responses); i++ {
		ok = ok && Got(resp, i) == nil
	}
	return linked.Kvs, ok
}

// NewestRead reads K, the place, and the newest key below K/ that is older than a revision. Etcd
// goes through the whole line.
func NewestRead(p Place, than int64) *pb.TxnRequest {
	return read(append(p.state(), newestOf(below(p.Lock), than))...)
}

// SharedNewestRead is NewestRead for one who shares the lock: it leaves out the others who do.
func SharedNewestRead(p Place, than int64) *pb.TxnRequest {
	return read(append(p.state(), newestOf(unshared(p.Lock), than))...)
}

// NewestOfAllRead reads the newest key below K/.
func NewestOfAllRead(lock string) *pb.TxnRequest { return read(newestOf(below(lock), maxRevision)) }

// NamesRead reads the names of all keys below K/ that are older than a revision.
func NamesRead(lock string, than int64) *pb.TxnRequest { return read(namesBelow(lock, than)) }

// WrittenRead reads K, or the slot that the place has, and the keys below K/ that were last written
// in a revision; of a semaphore with their values, which tell who has a slot.
func WrittenRead(p Place, in int64) *pb.TxnRequest {
	r := below(p.Lock)
	r.KeysOnly = p.Mode.Slots() == 0
	r.MinModRevision, r.MaxModRevision = in, in
	return read(get(p.LockKey()), ranged(r))
}

// HistoryRead reads K, a place, and the tail as it was before the revision that created the place.
func HistoryRead(lock, place string, created int64) *pb.TxnRequest {
	return read(get(lock), get(place), getAt(Tail(lock), created-1))
}

// KeysOf returns the keys that the i-th operation of a transaction has read.
func KeysOf(resp *pb.TxnResponse, i int) []*mvccpb.KeyValue {
	return resp.Responses[i].GetResponseRange().Kvs
}

// CountOf returns how many keys the i-th operation of a transaction has counted.
func CountOf(resp *pb.TxnResponse, i int) int64 { return resp.Responses[i].GetResponseRange().Count }

// Inner returns the answer to the transaction that was nested in a refused one, nil if there was
// none.
func Inner(resp *pb.TxnResponse) *pb.TxnResponse {
	if resp.Succeeded || len(resp.Responses) == 0 {
		return nil
	}
	inner := resp.Responses[0].GetResponseTxn()
	if inner != nil {
		inner.Header = resp.Header
	}
	return inner
}
