// Package translate stands between machines of package protocol and etcd: it makes the transactions
// that they ask for with package wire, and says what answers and events mean.
package translate

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/message"
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
		Shares: p.Shared,
	}
}

// PlaceOf returns a key as a place of a contender of ours. It is not ok for all other keys.
func PlaceOf(lock, key string, kv message.KV) (p wire.Place, ok bool) {
	return wire.PlaceOf(lock, &mvccpb.KeyValue{Key: []byte(key), Lease: kv.Lease, Value: []byte(kv.Value)})
}

// sharing is what a place asks for that shares the lock, where that is not what others ask for.
var sharing = map[message.Name]func(p wire.Place, r message.Request) *pb.TxnRequest{
	message.AcquireIfFree:     func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.ShareIfFree(p) },
	message.AcquireOrJoin:     func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.Share(p) },
	message.ClaimBehindHolder: func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.ShareBehindHolder(p, r.Rev) },
	message.ClaimOldest:       func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.ShareOldest(p, r.Rev) },
	message.GiveBack:          func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.Remove(p, r.Rev, false) },
	message.ReadLine:          func(p wire.Place, _ message.Request) *pb.TxnRequest { return wire.SharedLineRead(p) },
	message.ReadFar:           func(p wire.Place, r message.Request) *pb.TxnRequest { return wire.SharedNewestRead(p, r.Rev) },
}

// IsRead reports whether a request writes nothing.
func IsRead(p wire.Place, r message.Request) bool {
	switch r.Name {
	case message.ReadBusy, message.ReadNewest, message.ReadLine, message.ReadFar, message.ReadHistory,
		message.ReadState, message.ReadTail, message.ReadWritten:
		return true
	case message.ClaimBehindHolder, message.ClaimOldest:
		return p.Shared
	}
	return false
}

// Txn returns the transaction that a machine at a place asks for. Again says that another try was
// made before it.
func Txn(p wire.Place, r message.Request, again bool) *pb.TxnRequest {
	if txn := sharing[r.Name]; p.Shared && txn != nil {
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
		link := wire.Link{Place: r.Next.Place, Lease: clientv3.LeaseID(r.Next.Lease), ID: r.Next.ID}
		return wire.Pass(p, r.Rev, wire.Successor{Link: link, Joined: r.Next.Joined})
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
		return wire.RemoveKey(p.Lock, r.Rev)
	case message.RemoveTail:
		return wire.RemoveTail(p.Lock, r.Rev)
	}
	return readTxn(p, r)
}

// readTxn returns the read that a machine asks for.
func readTxn(p wire.Place, r message.Request) *pb.TxnRequest {
	switch r.Name {
	case message.ReadBusy:
		return wire.BusyRead(p.Lock)
	case message.ReadNewest:
		return wire.NewestOfAllRead(p.Lock)
	case message.ReadLine:
		return wire.LineRead(p)
	case message.ReadFar:
		return wire.NewestRead(p, r.Rev)
	case message.ReadHistory:
		return wire.HistoryRead(p.Lock, r.Place, r.Rev)
	case message.ReadState:
		return wire.StateRead(wire.StateOps(p.Lock, p.Key, ""))
	case message.ReadTail:
		if r.Place != "" {
			return wire.KeyRead(r.Place)
		}
		return wire.KeyRead(wire.Tail(p.Lock))
	case message.ReadWritten:
		return wire.WrittenRead(p.Lock, r.Rev)
	}
	panic("translate: no transaction is called " + string(r.Name))
}

// Answer returns what etcd's answer to a request says.
func Answer(p wire.Place, r message.Request, resp *pb.TxnResponse) message.Answer {
	if r.Name == message.ClaimBehindHolder {
		resp = wire.ClaimAnswer(resp)
	}
	a := message.Answer{Outcome: message.Applied, Rev: resp.Header.Revision}
	if !resp.Succeeded {
		a.Outcome = message.Refused
	}
	switch r.Name {
	case message.AcquireIfFree, message.AcquireOrJoin:
		joined(p, resp, &a)
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
	case message.ReadBusy:
		a.Keys.Lock = kvOf(wire.Got(resp, 0))
	case message.ReadNewest:
		newest := wire.Got(resp, 0)
		a.Some = newest != nil && wire.IsPlace(p.Lock, newest)
		a.Ahead, a.Found = AheadOf(newest, nil), kvOf(newest)
	case message.ReadLine:
		var line []*mvccpb.KeyValue
		line, a.Whole = wire.LineOf(resp)
		a.Keys = KeysOf(resp, 0)
		newest := NewestOlder(p.Lock, line, r.Rev)
		a.Ahead, a.Found = AheadOf(newest, wire.Got(resp, 0)), kvOf(newest)
	case message.ReadFar:
		a.Ahead = AheadOf(wire.Got(resp, 2), wire.Got(resp, 0))
	case message.ReadHistory:
		a.Keys = KeysOf(resp, 0)
		tail := wire.Got(resp, 2)
		a.Tail, a.Ahead = kvOf(tail), aheadOfTail(p.Lock, tail)
	case message.ReadTail:
		found := wire.Got(resp, 0)
		a.Found, a.Link = kvOf(found), linkOf(p.Lock, found)
	case message.ReadWritten:
		a.Found, a.Some = kvOf(wire.Got(resp, 0)), len(wire.KeysOf(resp, 1)) > 0
	}
	return a
}

// joined completes the answer to a request that creates the place.
func joined(p wire.Place, resp *pb.TxnResponse, a *message.Answer) {
	inner := wire.Inner(resp)
	switch {
	case resp.Succeeded, inner == nil, inner.Succeeded && len(inner.Responses) == 0:
	case !inner.Succeeded && p.Shared:
		a.Ours, a.Keys.Place = true, kvOf(wire.Got(inner, 0))
	case !inner.Succeeded:
		a.Ours, a.Keys = true, KeysOf(inner, 0)
	default:
		a.Else, a.Keys.Lock = true, kvOf(wire.Got(inner, 0))
		newest := wire.Got(inner, 1)
		switch {
		case newest == nil:
		case p.Linked, p.Shared:
			a.Ahead = aheadOfTail(p.Lock, newest)
		case wire.IsPlace(p.Lock, newest):
			a.Ahead = message.Ahead{Key: string(newest.Key), Create: newest.CreateRevision}
		}
	}
}

// aheadOfTail returns the place that a tail names, as it was created, if the tail can be read.
func aheadOfTail(lock string, tail *mvccpb.KeyValue) message.Ahead {
	link := linkOf(lock, tail)
	if link.Place == "" {
		return message.Ahead{}
	}
	return message.Ahead{Key: link.Place, Create: tail.ModRevision, Link: link}
}

// AheadOf returns what stands before a place: the newest older place, else K, else nothing.
func AheadOf(newest, lock *mvccpb.KeyValue) message.Ahead {
	if newest == nil {
		newest = lock
	}
	if newest == nil {
		return message.Ahead{}
	}
	return message.Ahead{Key: string(newest.Key), Create: newest.CreateRevision}
}

// NewestOlder returns the newest place among keys below K/ that is older than a revision, nil
// without one.
func NewestOlder(lock string, kvs []*mvccpb.KeyValue, than int64) (newest *mvccpb.KeyValue) {
	for _, kv := range wire.Places(lock, kvs) {
		if kv.CreateRevision < than {
			newest = kv
		}
	}
	return newest
}

// Event returns what an event of a key that is watched says.
func Event(p wire.Place, of message.Watched, e *mvccpb.Event) message.Event {
	kv := kvOf(e.Kv)
	kv.Mod = e.Kv.ModRevision
	event := message.Event{Of: of, Deleted: e.Type == mvccpb.DELETE, KV: kv}
	switch of {
	case message.OnTail:
		event.Link = linkOf(p.Lock, e.Kv)
	case message.OnAhead:
		record, err := wire.ParseRecord(e.Kv.Value)
		event.Record, event.ID = err == nil, record.ID
	}
	return event
}

// Observation returns what a read of the state says. Ahead is the key that was read beside it, ""
// for none.
func Observation(resp *pb.TxnResponse, n int, ahead string) message.Observation {
	o := message.Observation{Rev: resp.Header.Revision, Keys: KeysOf(resp, n), Of: ahead}
	if ahead != "" {
		o.Ahead = kvOf(wire.Got(resp, n+2))
	}
	return o
}

// KeysOf returns K and a place, which the operations from the n-th on have read.
func KeysOf(resp *pb.TxnResponse, n int) message.Keys {
	return message.Keys{Lock: kvOf(wire.Got(resp, n)), Place: kvOf(wire.Got(resp, n+1))}
}

// kvOf returns a key as machines know it. Nil is absent.
func kvOf(kv *mvccpb.KeyValue) message.KV {
	if kv == nil {
		return message.KV{}
	}
	return message.KV{Create: kv.CreateRevision, Mod: kv.ModRevision, Lease: kv.Lease, Value: string(kv.Value)}
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
