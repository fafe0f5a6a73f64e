// Package translate stands between machines of package protocol and etcd: it makes the transactions
// that they ask for with package wire, and says what answers and events mean.
package translate

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Config returns what a machine is made with to stand at a place.
func Config(p wire.Place) protocol.Config {
	return protocol.Config{
		Lock:   p.Lock,
		Place:  p.Key,
		Lease:  int64(p.Lease),
		ID:     p.ID,
		Record: p.Record,
		Tail:   p.Tail(),
		Linked: p.Linked,
	}
}

// Txn returns the transaction that a machine at a place asks for. Again says that another try was
// made before it.
func Txn(p wire.Place, r protocol.Request, again bool) *pb.TxnRequest {
	switch r.Name {
	case protocol.AcquireIfFree:
		return wire.AcquireIfFree(p, again)
	case protocol.AcquireOrJoin:
		return wire.Acquire(p)
	case protocol.Claim:
		return wire.Claim(p, r.Rev)
	case protocol.ClaimBehindHolder:
		return wire.ClaimBehindHolder(p, r.Rev)
	case protocol.ClaimOldest:
		return wire.ClaimOldest(p, r.Rev)
	case protocol.Pass:
		link := wire.Link{Place: r.Next.Place, Lease: clientv3.LeaseID(r.Next.Lease), ID: r.Next.ID}
		return wire.Pass(p, r.Rev, wire.Successor{Link: link, Joined: r.Next.Joined})
	case protocol.GiveBack:
		return wire.Release(p, r.Rev, r.Tail)
	case protocol.LeaveLost:
		return wire.LeaveLost(p, r.Tail)
	case protocol.Leave:
		return wire.Leave(p, r.Rev, r.Tail, r.Before.Tail)
	case protocol.Remove:
		return wire.Remove(p, r.Rev, r.Tail)
	case protocol.RemoveKey:
		return wire.RemoveKey(p.Lock, r.Rev)
	case protocol.RemoveTail:
		return wire.RemoveTail(p)
	}
	return readTxn(p, r)
}

// readTxn returns the read that a machine asks for.
func readTxn(p wire.Place, r protocol.Request) *pb.TxnRequest {
	switch r.Name {
	case protocol.ReadBusy:
		return wire.BusyRead(p.Lock)
	case protocol.ReadNewest:
		return wire.NewestOfAllRead(p.Lock)
	case protocol.ReadLine:
		return wire.LineRead(p)
	case protocol.ReadFar:
		return wire.NewestRead(p, r.Rev)
	case protocol.ReadHistory:
		return wire.HistoryRead(p.Lock, r.Place, r.Rev)
	case protocol.ReadState:
		return wire.StateRead(wire.StateOps(p.Lock, p.Key, ""))
	case protocol.ReadTail:
		if r.Place != "" {
			return wire.KeyRead(r.Place)
		}
		return wire.KeyRead(wire.Tail(p.Lock))
	case protocol.ReadWritten:
		return wire.WrittenRead(p.Lock, r.Rev)
	}
	panic("translate: no transaction is called " + string(r.Name))
}

// Answer returns what etcd's answer to a request says.
func Answer(p wire.Place, r protocol.Request, resp *pb.TxnResponse) protocol.Answer {
	a := protocol.Answer{Outcome: protocol.Applied, Rev: resp.Header.Revision}
	if !resp.Succeeded {
		a.Outcome = protocol.Refused
	}
	switch r.Name {
	case protocol.AcquireIfFree, protocol.AcquireOrJoin:
		joined(p, resp, &a)
	case protocol.Claim, protocol.ClaimBehindHolder, protocol.ClaimOldest, protocol.Leave:
		if !resp.Succeeded {
			a.Keys = KeysOf(resp, 0)
		}
	case protocol.LeaveLost, protocol.ReadState:
		a.Keys = KeysOf(resp, 0)
	case protocol.ReadBusy:
		a.Keys.Lock = kvOf(wire.Got(resp, 0))
	case protocol.ReadNewest:
		newest := wire.Got(resp, 0)
		a.Some = newest != nil && wire.IsPlace(p.Lock, newest)
	case protocol.ReadLine:
		var line []*mvccpb.KeyValue
		line, a.Whole = wire.LineOf(resp)
		a.Keys = KeysOf(resp, 0)
		a.Ahead = AheadOf(NewestOlder(p.Lock, line, r.Rev), wire.Got(resp, 0))
	case protocol.ReadFar:
		a.Ahead = AheadOf(wire.Got(resp, 2), wire.Got(resp, 0))
	case protocol.ReadHistory:
		a.Keys = KeysOf(resp, 0)
		tail := wire.Got(resp, 2)
		a.Tail, a.Link = kvOf(tail), linkOf(p.Lock, tail)
	case protocol.ReadTail:
		a.Found = kvOf(wire.Got(resp, 0))
	case protocol.ReadWritten:
		a.Found, a.Some = kvOf(wire.Got(resp, 0)), len(wire.KeysOf(resp, 1)) > 0
	}
	return a
}

// joined completes the answer to a request that creates the place.
func joined(p wire.Place, resp *pb.TxnResponse, a *protocol.Answer) {
	inner := wire.Inner(resp)
	switch {
	case resp.Succeeded, inner == nil, inner.Succeeded && len(inner.Responses) == 0:
	case !inner.Succeeded:
		a.Ours, a.Keys = true, KeysOf(inner, 0)
	default:
		a.Else, a.Keys.Lock = true, kvOf(wire.Got(inner, 0))
		newest := wire.Got(inner, 1)
		switch {
		case newest == nil:
		case p.Linked:
			if link := linkOf(p.Lock, newest); link.Place != "" {
				a.Ahead = protocol.Ahead{Key: link.Place, Create: newest.ModRevision, Link: link}
			}
		case wire.IsPlace(p.Lock, newest):
			a.Ahead = protocol.Ahead{Key: string(newest.Key), Create: newest.CreateRevision}
		}
	}
}

// AheadOf returns what stands before a place: the newest older place, else K, else nothing.
func AheadOf(newest, lock *mvccpb.KeyValue) protocol.Ahead {
	if newest == nil {
		newest = lock
	}
	if newest == nil {
		return protocol.Ahead{}
	}
	return protocol.Ahead{Key: string(newest.Key), Create: newest.CreateRevision}
}

// NewestOlder returns the newest place among keys below K/ that is older than a revision, nil if
// there is none.
func NewestOlder(lock string, kvs []*mvccpb.KeyValue, than int64) (newest *mvccpb.KeyValue) {
	for _, kv := range wire.Places(lock, kvs) {
		if kv.CreateRevision < than {
			newest = kv
		}
	}
	return newest
}

// Event returns what an event of a key that is watched says.
func Event(p wire.Place, of protocol.Watched, e *mvccpb.Event) protocol.Event {
	kv := kvOf(e.Kv)
	kv.Mod = e.Kv.ModRevision
	event := protocol.Event{Of: of, Deleted: e.Type == mvccpb.DELETE, KV: kv}
	switch of {
	case protocol.OnTail:
		event.Link = linkOf(p.Lock, e.Kv)
	case protocol.OnAhead:
		record, err := wire.ParseRecord(e.Kv.Value)
		event.Record, event.ID = err == nil, record.ID
	}
	return event
}

// Observation returns what a read of the state says. Ahead is the key that was read beside it, ""
// for none.
func Observation(resp *pb.TxnResponse, n int, ahead string) protocol.Observation {
	o := protocol.Observation{Rev: resp.Header.Revision, Keys: KeysOf(resp, n), Of: ahead}
	if ahead != "" {
		o.Ahead = kvOf(wire.Got(resp, n+2))
	}
	return o
}

// KeysOf returns K and a place, which the operations from the n-th on have read.
func KeysOf(resp *pb.TxnResponse, n int) protocol.Keys {
	return protocol.Keys{Lock: kvOf(wire.Got(resp, n)), Place: kvOf(wire.Got(resp, n+1))}
}

// kvOf returns a key as machines know it. Nil is absent.
func kvOf(kv *mvccpb.KeyValue) protocol.KV {
	if kv == nil {
		return protocol.KV{}
	}
	return protocol.KV{Create: kv.CreateRevision, Mod: kv.ModRevision, Lease: kv.Lease, Value: string(kv.Value)}
}

// linkOf returns what a tail names, if it can be read.
func linkOf(lock string, tail *mvccpb.KeyValue) protocol.Link {
	if tail == nil {
		return protocol.Link{}
	}
	link, ok := wire.ParseLink(lock, string(tail.Value))
	if !ok {
		return protocol.Link{}
	}
	return protocol.Link{Tail: string(tail.Value), Place: link.Place, Lease: int64(link.Lease), ID: link.ID}
}
