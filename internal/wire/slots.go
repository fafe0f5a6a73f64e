package wire

import (
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/record"
)

// The line for a semaphore is that of a lock, and K is the right to be next in it. Whoever has that
// takes a slot, and passes K on with the same transaction: the place stays, with another record,
// for as long as the slot is held. The slots keep each other out by themselves: each is a key, and
// is created where it is not there.

// At returns the place as that of the holder of a slot, or, with 0, as that of somebody who wants
// K: its lock is what it holds then.
func (p Place) At(seat int) Place {
	p.Seat = seat
	return p
}

// LockKey is the key that says who holds the lock: K, or the slot that the place has.
func (p Place) LockKey() string {
	if p.Seat > 0 {
		return Slot(p.Lock, p.Mode.Slots(), p.Seat-1)
	}
	return p.Lock
}

// SlotOf returns which slot a key is, and of how many, -1 and 0 if it is not a slot.
func SlotOf(lock, key string) (i, slots int) {
	n, rest := SlotsOf(lock, key)
	name, ok := strings.CutPrefix(rest, slotMark)
	i, err := strconv.Atoi(name)
	if !ok || err != nil || i < 0 || i >= n {
		return -1, 0
	}
	return i, n
}

// sitting takes a slot, and writes the place with it.
func (p Place) sitting(slot int) []*operation {
	return []*operation{put(Slot(p.Lock, p.Mode.Slots(), slot), p.ID, p.Lease), put(p.Key, record.Seated(p.Record, slot), p.Lease)}
}

// slotsTaken gets the names of the slots that are held.
func (p Place) slotsTaken() *operation {
	r := between(SlotsRange(p.Lock, p.Mode.Slots()))
	r.KeysOnly = true
	return ranged(r)
}

// Free returns a slot that is not among those that the i-th operation of a transaction has found to
// be held, from one on, -1 if all are held.
func (p Place) Free(resp *pb.TxnResponse, i, from int) int {
	taken := make(map[string]bool)
	for _, kv := range KeysOf(resp, i) {
		taken[string(kv.Key)] = true
	}
	for n := range p.Mode.Slots() {
		if slot := (from + n) % p.Mode.Slots(); !taken[Slot(p.Lock, p.Mode.Slots(), slot)] {
			return slot
		}
	}
	return -1
}

// unlessAnyWaits does something if nobody is in the line of a semaphore but who has a slot, and
// something else otherwise. Of what there is of others it compares nothing. K and the tail, which
// are compared before, mostly tell that somebody waits; they do not when the newest in line has
// died, and the tail with it.
func (p Place) unlessAnyWaits(then, els []*operation) *operation {
	places := between(SlotPlaces(p.Lock, p.Mode.Slots()))
	allSit := valueIs(string(places.Key), record.LastSeat)
	allSit.RangeEnd, allSit.Result = places.RangeEnd, pb.Compare_LESS
	return nested([]*comparison{noneIn(places)}, then, []*operation{nested([]*comparison{allSit}, then, els)})
}

// onlyOwn compares true if nothing is below K/ but what is of the place's semaphore.
func (p Place) onlyOwn() (cmps []*comparison) {
	_, others := ownSlots(p.Lock, p.Mode.Slots())
	for _, r := range others {
		cmps = append(cmps, noneIn(r))
	}
	return cmps
}

func (p Place) nobodyNext() []*comparison {
	return append([]*comparison{createIs(p.Lock, 0), createIs(Tail(p.Lock), 0)}, p.onlyOwn()...)
}

// SlotIfFree takes a slot if it is free, and nobody waits for one. If the place is there, which an
// earlier try has created, it answers with its state. Otherwise it answers with the names of the
// slots that are held, and with the slot, unless somebody waits.
func SlotIfFree(p Place, slot int) *pb.TxnRequest {
	cmps := append(p.nobodyNext(), createIs(p.Key, 0), createIs(Slot(p.Lock, p.Mode.Slots(), slot), 0))
	return txn(cmps, []*operation{p.unlessAnyWaits(p.sitting(slot), nil)}, []*operation{p.unlessThere([]*operation{p.slotsTaken(), get(Slot(p.Lock, p.Mode.Slots(), slot))})})
}

// Taken reports whether a SlotIfFree or a SlotTurn has taken something. If it has not, rest is the
// answer to unlessThere, or what that would have answered: where somebody waits the place is
// absent.
func Taken(resp *pb.TxnResponse) (rest *pb.TxnResponse, taken bool) {
	if !resp.Succeeded {
		return Inner(resp), false
	}
	rest = resp
	for range 2 {
		if rest = rest.Responses[0].GetResponseTxn(); rest.Succeeded {
			return nil, true
		}
	}
	return &pb.TxnResponse{Header: resp.Header, Succeeded: true, Responses: rest.Responses}, false
}

// SlotTurn takes K, the right to be next, if nobody waits, else a place at the end of the line. It
// answers as Acquire does, but where neither K nor a tail was there it reads neither.
func SlotTurn(p Place) *pb.TxnRequest {
	cmps := append(p.nobodyNext(), createIs(p.Key, 0))
	return txn(cmps, []*operation{p.unlessAnyWaits(p.winning(), p.linking())}, []*operation{p.unlessThere(p.joining())})
}

// SlotBehindHolder takes K for a place that stood directly behind one that has got a slot, or has
// gone with it, if nobody else is in line but for the same semaphore.
func SlotBehindHolder(p Place, created int64) *pb.TxnRequest { return p.claim(created, p.onlyOwn()...) }

// TakeSlot takes a slot for the holder of K, and passes K to its successor, if there is one, the
// successor is where it joined, and nobody else is in line but for the same semaphore. Else K is
// deleted. Refused, it answers with the state, and with the slots that are held.
func TakeSlot(p Place, turn int64, slot int, tail bool, next *Successor) *pb.TxnRequest {
	cmps := []*comparison{modIs(p.Lock, turn), p.is(turn), createIs(Slot(p.Lock, p.Mode.Slots(), slot), 0)}
	pass := remove(p.Lock)
	if next != nil {
		isThere := append([]*comparison{modIs(next.Place, next.Joined)}, p.onlyOwn()...)
		pass = nested(isThere, []*operation{put(p.Lock, next.ID, next.Lease), rewrite(next.Place)}, []*operation{remove(p.Lock)})
	}
	return txn(cmps, append(append(p.sitting(slot), pass), p.dropTail(tail)...), append(p.state(), p.slotsTaken()))
}

// SlotLineRead is LineRead for the line of a semaphore.
func SlotLineRead(p Place) *pb.TxnRequest {
	places := between(SlotPlaces(p.Lock, p.Mode.Slots()))
	_, others := ownSlots(p.Lock, p.Mode.Slots())
	return read(append(p.state(), shortLine(ShortLine, places, others...)...)...)
}

// SlotNewestRead is NewestRead for the line of a semaphore: the newest of its places, and of what
// else is in line.
func SlotNewestRead(p Place, than int64) *pb.TxnRequest {
	ops := append(p.state(), newestOf(between(SlotPlaces(p.Lock, p.Mode.Slots())), than))
	_, others := ownSlots(p.Lock, p.Mode.Slots())
	for _, r := range others {
		ops = append(ops, newestOf(r, than))
	}
	return read(ops...)
}

// NewestOf returns the newest of the keys that the operations of a transaction from the i-th on
// have got, one each, nil without one.
func NewestOf(resp *pb.TxnResponse, i int) (newest *mvccpb.KeyValue) {
	for ; i < len(resp.Responses); i++ {
		if kv := Got(resp, i); kv != nil && (newest == nil || kv.CreateRevision > newest.CreateRevision) {
			newest = kv
		}
	}
	return newest
}

// KindRead reads the oldest of what is in line for a lock, or for a semaphore, and of what is of
// semaphores of all sizes.
func KindRead(lock string) *pb.TxnRequest {
	return read(oldestOf(between(LinkedRange(lock))), oldestOf(slotted(lock)))
}
