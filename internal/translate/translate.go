// Package translate stands between machines of package protocol and etcd: it makes the transactions
// that they ask for with package wire, and says what answers and events mean.
package translate

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Config returns what a machine is made with to stand at a place.
func Config(p wire.Place) message.Config {
	return message.Config{
		Lock:   p.Lock,
		Place:  p.Key,
		Lease:  int64(p.Lease),
		ID:     p.ID,
		Record: p.Record,
		Linked: p.Linked,
		Shares: p.Mode == mode.Shared,
		Kind:   message.Kind(p.Mode.Slots()),
	}
}

// PlaceOf returns a key as a place of a contender of ours. It is not ok for all other keys.
func PlaceOf(lock, key string, kv message.KV) (p wire.Place, ok bool) {
	return wire.PlaceOf(lock, &mvccpb.KeyValue{Key: []byte(key), Lease: kv.Lease, Value: []byte(kv.Value)})
}

// txns make what a place asks for that wants the lock in another way than alone, where that is not
// what others ask for.
type txns map[message.Name]func(p wire.Place, r message.Request) *pb.TxnRequest

// sharing is what a place asks for that shares the lock, and sitting one that wants a slot.
var (
	sharing = txns{
		message.AcquireIfFree:     func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.ShareIfFree(p) },
		message.AcquireOrJoin:     func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.Share(p) },
		message.ClaimBehindHolder: func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.ShareBehindHolder(p, r.Rev) },
		message.ClaimOldest:       func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.ShareOldest(p, r.Rev) },
		message.GiveBack:          func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.Remove(p, r.Rev, false) },
		message.ReadLine:          func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.SharedLineRead(p) },
		message.ReadFar:           func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.SharedNewestRead(p, r.Rev) },
	}
	sitting = txns{
		message.AcquireIfFree:     func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.SlotIfFree(p, r.Slot) },
		message.AcquireOrJoin:     func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.SlotTurn(p) },
		message.ClaimBehindHolder: func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.SlotBehindHolder(p, r.Rev) },
		message.TakeSlot:          takeSlot,
		message.ReadLine:          func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.SlotLineRead(p) },
		message.ReadFar:           func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.SlotNewestRead(p, r.Rev) },
	}
)

func takeSlot(p wire.Place, r message.Request) *pb.TxnRequest {
	if r.Next.Place == "" {
		return wire.TakeSlot(p, r.Rev, r.Slot, r.Tail, nil)
	}
	next := successor(r.Next)
	return wire.TakeSlot(p, r.Rev, r.Slot, r.Tail, &next)
}

func successor(next message.Successor) wire.Successor {
	link := wire.Link{Place: next.Place, Lease: clientv3.LeaseID(next.Lease), ID: next.ID}
	return wire.Successor{Link: link, Joined: next.Joined}
}

// IsRead reports whether a request writes nothing.
func IsRead(p wire.Place, r message.Request) bool {
	switch r.Name {
	case message.ReadBusy, message.ReadNewest, message.ReadLine, message.ReadFar, message.ReadHistory,
		message.ReadState, message.ReadTail, message.ReadWritten, message.ReadKind:
		return true
	case message.ClaimBehindHolder, message.ClaimOldest:
		return p.Mode == mode.Shared
	}
	return false
}

// Txn returns the transaction that a machine at a place asks for. Again says that another try was
// made before it.
func Txn(p wire.Place, r message.Request, again bool) *pb.TxnRequest {
	p = p.At(r.Seat)
	if txn := sharing[r.Name]; p.Mode == mode.Shared && txn != nil {
		return txn(p, r)
	}
	if txn := sitting[r.Name]; p.Mode.Slots() > 0 && txn != nil {
		return txn(p, r)
	}
	switch r.Name {
	case message.AcquireIfFree:
		return wire.AcquireIfFree(p, again)
	case message.AcquireOrJoin:
		return wire.Acquire(p)
	case message.Claim:
		return wire.Claim(p, r.Rev)
	case message.ClaimBehindHolder:
		return wire.ClaimBehindHolder(p, r.Rev)
	case message.ClaimOldest:
		return wire.ClaimOldest(p, r.Rev)
	case message.Pass:
		return wire.Pass(p, r.Rev, successor(r.Next))
	case message.GiveBack:
		return wire.Release(p, r.Rev, r.Tail)
	case message.LeaveLost:
		return wire.LeaveLost(p, r.Tail)
	case message.Leave:
		before := wire.Link{Place: r.Before.Place, Lease: clientv3.LeaseID(r.Before.Lease), ID: r.Before.ID}
		return wire.Leave(p, r.Rev, r.Tail, before)
	case message.Remove:
		return wire.Remove(p, r.Rev, r.Tail)
	case message.RemoveKey:
		return wire.RemoveKey(p.LockKey(), r.Rev)
	case message.RemoveTail:
		return wire.RemoveTail(p.Lock, r.Rev)
	}
	return readTxn(p, r)
}

// readTxn returns the read that a machine asks for.
func readTxn(p wire.Place, r message.Request) *pb.TxnRequest {
	switch r.Name {
	case message.ReadBusy:
		return wire.BusyRead(p)
	case message.ReadNewest:
		return wire.NewestOfAllRead(p.Lock)
	case message.ReadLine:
		return wire.LineRead(p)
	case message.ReadFar:
		return wire.NewestRead(p, r.Rev)
	case message.ReadHistory:
		return wire.HistoryRead(p.Lock, r.Place, r.Rev)
	case message.ReadState:
		return wire.StateRead(wire.StateOps(p.LockKey(), p.Key, ""))
	case message.ReadTail:
		if r.Place != "" {
			return wire.KeyRead(p.LockKey())
		}
		return wire.KeyRead(wire.Tail(p.Lock))
	case message.ReadWritten:
		return wire.WrittenRead(p, r.Rev)
	case message.ReadKind:
		return wire.KindRead(p.Lock)
	}
	panic("translate: no transaction is called " + string(r.Name))
}

// Answer returns what etcd's answer to a request says.
func Answer(p wire.Place, r message.Request, resp *pb.TxnResponse) message.Answer {
	a := message.Answer{Outcome: message.Applied, Rev: resp.Header.Revision, Free: -1}
	taken := resp.Succeeded
	switch {
	case r.Joins() && p.Mode.Slots() > 0:
		resp, taken = wire.Taken(resp)
	case r.Name == message.ClaimBehindHolder && p.Mode.Slots() == 0:
		resp = wire.ClaimAnswer(resp)
		taken = resp.Succeeded
	}
	if !taken {
		a.Outcome = message.Refused
	}
	switch r.Name {
	case message.AcquireIfFree, message.AcquireOrJoin:
		if !taken {
			joined(p, r, resp, &a)
		}
	case message.TakeSlot:
		if !taken {
			a.Keys, a.Free = KeysOf(resp, 0), p.Free(resp, 2, r.Slot)
		}
	case message.Claim, message.ClaimBehindHolder, message.ClaimOldest, message.Leave:
		switch {
		case resp.Succeeded:
		case len(resp.Responses) > 0:
			a.Keys = KeysOf(resp, 0)
		default: // somebody shares the lock, before the place
			a.Keys.Place = message.KV{Create: r.Rev, Mod: r.Rev, Lease: int64(p.Lease), Value: p.Record}
		}
	case message.LeaveLost, message.ReadState:
		a.Keys = KeysOf(resp, 0)
	default:
		readAnswer(p, r, resp, &a)
	}
	return a
}

// readAnswer completes the answer to what only reads.
func readAnswer(p wire.Place, r message.Request, resp *pb.TxnResponse, a *message.Answer) {
	switch r.Name {
	case message.ReadBusy:
		busy := wire.BusyOf(p, resp)
		a.Keys.Lock, a.Some = kvOf(busy.Lock), busy.Others
		if p.Mode.Slots() > 0 {
			a.Free = p.Free(resp, 2, r.Slot)
		}
	case message.ReadNewest:
		newest := wire.Got(resp, 0)
		a.Some = newest != nil && (wire.IsPlace(p.Lock, newest) || KindOf(p.Lock, newest) > message.Plain)
		a.Ahead, a.Found = Found(p.Lock, newest, nil)
	case message.ReadKind:
		oldest := Oldest(p.Lock, resp)
		a.Kind = KindOf(p.Lock, oldest)
		a.Ahead, a.Found = Found(p.Lock, oldest, nil)
	case message.ReadLine:
		var line []*mvccpb.KeyValue
		line, a.Whole = wire.LineOf(resp)
		a.Keys = KeysOf(resp, 0)
		a.Ahead, a.Found = Found(p.Lock, NewestOlder(p, line, r.Rev), wire.Got(resp, 0))
	case message.ReadFar:
		a.Ahead, a.Found = Found(p.Lock, Newest(p, resp), wire.Got(resp, 0))
	case message.ReadHistory:
		a.Keys = KeysOf(resp, 0)
		tail := wire.Got(resp, 2)
		a.Tail, a.Ahead = kvOf(tail), aheadOfTail(p.Lock, tail)
	case message.ReadTail:
		found := wire.Got(resp, 0)
		a.Found, a.Link = kvOf(found), linkOf(p.Lock, found)
	case message.ReadWritten:
		a.Found = kvOf(wire.Got(resp, 0))
		for _, kv := range wire.KeysOf(resp, 1) { // a place of K's holder, or of the slot's
			a.Some = a.Some || p.Mode.Slots() == 0 || wire.IsPlace(p.Lock, kv) && record.SeatOf(kv.Value) == r.Seat
		}
	}
}

// joined completes the answer to a request that creates the place.
func joined(p wire.Place, r message.Request, resp *pb.TxnResponse, a *message.Answer) {
	inner := resp
	if p.Mode.Slots() == 0 {
		inner = wire.Inner(resp)
	}
	switch {
	case inner == nil, inner.Succeeded && len(inner.Responses) == 0:
	case !inner.Succeeded && p.Mode == mode.Shared:
		a.Ours, a.Keys.Place = true, kvOf(wire.Got(inner, 0))
	case !inner.Succeeded:
		a.Ours, a.Keys = true, KeysOf(inner, 0)
	case p.Mode.Slots() > 0 && r.Name == message.AcquireIfFree:
		a.Free, a.Keys.Lock = p.Free(inner, 0, r.Slot), kvOf(wire.Got(inner, 1))
	default:
		a.Else, a.Keys.Lock = true, kvOf(wire.Got(inner, 0))
		newest := wire.Got(inner, 1)
		switch {
		case newest == nil:
		case p.Linked, p.Mode == mode.Shared:
			a.Ahead = aheadOfTail(p.Lock, newest)
		case wire.IsPlace(p.Lock, newest):
			a.Ahead = AheadOf(p.Lock, newest, nil)
		}
	}
}

// aheadOfTail returns the place that a tail names, as it was created, if the tail can be read.
func aheadOfTail(lock string, tail *mvccpb.KeyValue) message.Ahead {
	link := linkOf(lock, tail)
	if link.Place == "" {
		return message.Ahead{}
	}
	return message.Ahead{Key: link.Place, Create: tail.ModRevision, Link: link, Kind: kindOf(lock, link.Place)}
}

// Found is AheadOf with the newest older place as it was read.
func Found(lock string, newest, key *mvccpb.KeyValue) (message.Ahead, message.KV) {
	return AheadOf(lock, newest, key), kvOf(newest)
}

// AheadOf returns what stands before a place: the newest older place, else K, else nothing.
func AheadOf(lock string, newest, key *mvccpb.KeyValue) message.Ahead {
	if newest == nil {
		newest = key
	}
	if newest == nil {
		return message.Ahead{}
	}
	return message.Ahead{Key: string(newest.Key), Create: newest.CreateRevision, Kind: KindOf(lock, newest)}
}

// NewestOlder returns the newest place among keys below K/ that is older than a revision, and that
// has no slot of the semaphore for which p waits, nil without one.
func NewestOlder(p wire.Place, kvs []*mvccpb.KeyValue, than int64) (newest *mvccpb.KeyValue) {
	for _, kv := range wire.Places(p.Lock, kvs) {
		if kv.CreateRevision < than && !sits(p, kv) {
			newest = kv
		}
	}
	return newest
}

func sits(p wire.Place, kv *mvccpb.KeyValue) bool {
	return kvOf(kv).Sits(KindOf(p.Lock, kv), message.Kind(p.Mode.Slots()))
}

// Newest returns the newest key below K/ that a read of the far line has found. Where the newest
// place has a slot, so have all that are older.
func Newest(p wire.Place, resp *pb.TxnResponse) *mvccpb.KeyValue {
	if own := wire.Got(resp, 2); own != nil && sits(p, own) {
		return wire.NewestOf(resp, 3)
	}
	return wire.NewestOf(resp, 2)
}

// Oldest returns the oldest of what a read of the kind of a line has found, nil without one. Keys
// of other locks may be called as if they were of the line: K/~since is one of a lock K/.
func Oldest(lock string, resp *pb.TxnResponse) (oldest *mvccpb.KeyValue) {
	for _, kv := range slices.Concat(wire.KeysOf(resp, 0), wire.KeysOf(resp, 1)) {
		if wire.IsOf(lock, kv) && (oldest == nil || kv.CreateRevision < oldest.CreateRevision) {
			oldest = kv
		}
	}
	return oldest
}

// KindOf returns of which kind a line is in which a key stands.
func KindOf(lock string, kv *mvccpb.KeyValue) message.Kind {
	if kv == nil || !wire.IsOf(lock, kv) {
		return message.Stranger
	}
	return kindOf(lock, string(kv.Key))
}

func kindOf(lock, key string) message.Kind {
	slots, _ := wire.SlotsOf(lock, key)
	from, to := wire.LinkedRange(lock)
	if slots == 0 && !(from <= key && key < to) {
		return message.Stranger
	}
	return message.Kind(slots)
}

// Event returns what an event of a key that is watched says.
func Event(p wire.Place, of message.Watched, e *mvccpb.Event) message.Event {
	kv := kvOf(e.Kv)
	kv.Mod = e.Kv.ModRevision
	event := message.Event{Of: of, Deleted: e.Type == mvccpb.DELETE, KV: kv}
	switch of {
	case message.OnTail:
		event.Link = linkOf(p.Lock, e.Kv)
	case message.OnSlots:
		event.Slot, _ = wire.SlotOf(p.Lock, string(e.Kv.Key))
	case message.OnAhead:
		entry, err := record.Parse(e.Kv.Value)
		event.Record, event.ID = err == nil, entry.ID
	}
	return event
}

// Observation returns what a read of the state says, which the place had with a seat. Ahead is the
// key that was read beside it, "" for none.
func Observation(resp *pb.TxnResponse, n, seat int, ahead string) message.Observation {
	o := message.Observation{Rev: resp.Header.Revision, Keys: KeysOf(resp, n), Seat: seat, Of: ahead}
	if ahead != "" {
		o.Ahead = kvOf(wire.Got(resp, n+2))
	}
	return o
}

// KeysOf returns K and a place, which the operations from the n-th on have read.
func KeysOf(resp *pb.TxnResponse, n int) message.Keys {
	return message.Keys{Lock: kvOf(wire.Got(resp, n)), Place: kvOf(wire.Got(resp, n+1))}
}

// Broken returns who has broken a lock that was lost, by what was written over K, over a slot or a
// place. It returns nil if nobody has, or that does not say who.
func Broken(of message.Reason, written string) error {
	if of != message.KeyOverwritten {
		return nil
	}
	if b, _ := record.BreakOf([]byte(written)); b != nil {
		return b
	}
	return nil
}

// kvOf returns a key as machines know it. Nil is absent.
func kvOf(kv *mvccpb.KeyValue) message.KV {
	if kv == nil {
		return message.KV{}
	}
	return message.KV{Create: kv.CreateRevision, Mod: kv.ModRevision, Lease: kv.Lease, Value: string(kv.Value), Seat: record.SeatOf(kv.Value)}
}

// linkOf returns what a tail names, if it can be read.
func linkOf(lock string, tail *mvccpb.KeyValue) message.Link {
	if tail == nil {
		return message.Link{}
	}
	link, ok := wire.ParseLink(lock, string(tail.Value))
	if !ok || tail.Lease != int64(link.Lease) { // somebody has put it there by hand
		return message.Link{}
	}
	return message.Link{Place: link.Place, Lease: int64(link.Lease), ID: link.ID}
}
