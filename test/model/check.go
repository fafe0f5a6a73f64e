package model

import (
	"reflect"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A scene is what there is around a place.
type scene struct {
	lock, place, tail *mvccpb.KeyValue
	names             string           // the place that the tail names
	named             *mvccpb.KeyValue // if that is there
	newest            *mvccpb.KeyValue // below K/
	of                wire.Place
}

func (w *World) scene(s *slot) scene {
	c := scene{lock: w.get(lock), place: &absent, tail: w.get(wire.Tail(lock)), named: &absent, of: s.place}
	c.place, c.newest = w.get(s.place.Key), w.newest()
	if link, ok := wire.ParseLink(lock, string(c.tail.Value)); ok {
		c.names, c.named = link.Place, w.get(link.Place)
	}
	return c
}

// keys returns K and the place as a machine is told of them.
func (c scene) keys() message.Keys { return message.Keys{Lock: kvOf(c.lock), Place: kvOf(c.place)} }

func kvOf(kv *mvccpb.KeyValue) message.KV {
	return message.KV{Create: kv.CreateRevision, Mod: kv.ModRevision, Lease: kv.Lease, Value: string(kv.Value)}
}

// mustStandTogether checks of a pass that the place is as it was when K was written, if K is,
// unless an operator has taken places away.
func (w *World) mustStandTogether(r message.Request, before scene) {
	if r.Name == message.Pass && before.lock.ModRevision == r.Rev && before.place.ModRevision != r.Rev && !w.touched {
		w.errf("%s holds the lock and has no place", before.of.Key)
	}
}

// mustWrite checks what a transaction has written: nobody takes a K that is there, and the tail
// names whoever has joined, and nobody who has gone.
func (w *World) mustWrite(r message.Request, before, now scene) {
	isThere := before.lock.CreateRevision > 0 && now.lock.CreateRevision > 0 && now.lock.ModRevision != before.lock.ModRevision
	switch {
	case isThere && r.Name != message.Pass:
		w.errf("%s took a K that was there", r.Name)
	case isThere && string(before.lock.Value) == byHand:
		w.errf("a pass took a K that the operator put there")
	}
	joined := before.place.CreateRevision == 0 && now.place.CreateRevision > 0 && now.place.ModRevision != now.lock.ModRevision
	if joined && now.of.Linked && now.names != now.of.Key {
		w.errf("%s has joined, and the tail does not name it", now.of.Key)
	}
	left := before.place.CreateRevision > 0 && now.place.CreateRevision == 0
	if left && (r.Tail || r.Name == message.Pass) && now.names == now.of.Key {
		w.errf("%s has gone, and the tail names it", now.of.Key)
	}
	if before.named.CreateRevision > 0 && now.tail.CreateRevision == 0 && before.names != now.of.Key {
		w.errf("%s deleted a tail that names somebody else", r.Name)
	}
	if now.tail.ModRevision > before.tail.ModRevision {
		w.tailChanged(r.Name)
	}
}

// mustShow checks what an answer says of what there was before.
func (w *World) mustShow(s *slot, a message.Answer, before scene) {
	if s.request.Joins() {
		w.mustShowJoined(s, a, before)
		return
	}
	is := true
	switch r := s.request; {
	case r.Name == message.ReadLine && a.Whole, r.Name == message.ReadFar && a.Outcome == message.Applied:
		is = a.Ahead.Key == w.ahead(r.Rev, s.place.Shared)
	case r.Name == message.ReadState, r.Name == message.LeaveLost, a.Outcome == message.Refused && (r.Claims() || r.Name == message.Leave):
		is = a.Keys == before.keys()
	case r.Name == message.ReadBusy:
		is = a.Keys.Lock == kvOf(before.lock)
	case r.Name == message.ReadNewest:
		is = a.Some == wire.IsPlace(lock, before.newest)
	case r.Name == message.ReadHistory && a.Outcome == message.Applied:
		is = a.Keys.Lock == kvOf(before.lock) && a.Keys.Place == kvOf(w.get(r.Place)) && (w.forgets || a.Tail.Mod == w.tailBefore(r.Rev))
	}
	if !is {
		w.errf("%s does not show what there is", s.request.Name)
	}
}

// mustShowJoined checks what somebody learns who has joined: that its place is there, and what
// stands before it.
func (w *World) mustShowJoined(s *slot, a message.Answer, before scene) {
	newest := before.newest
	switch {
	case a.Outcome != message.Refused:
	case before.place.CreateRevision > 0:
		if !a.Ours && s.again {
			w.errf("%s has a place, and does not learn that", s.place.Key)
		}
	case !a.Else:
	case a.Keys.Lock != kvOf(before.lock),
		(s.place.Linked || s.place.Shared) && before.named.CreateRevision > 0 && a.Ahead.Key != string(before.named.Key),
		!s.place.Linked && !s.place.Shared && wire.IsPlace(lock, newest) && a.Ahead.Key != string(newest.Key):
		w.errf("%s does not learn who stands before it", s.place.Key)
	}
}

// newest returns the newest key below K/.
func (w *World) newest() *mvccpb.KeyValue {
	newest := &absent
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if kv.CreateRevision > newest.CreateRevision {
			newest = kv
		}
	}
	return newest
}

// tailBefore returns when the tail was written as it was before a revision, 0 if it was absent.
func (w *World) tailBefore(revision int64) (mod int64) {
	mod = w.get(wire.Tail(lock)).ModRevision
	if mod >= revision {
		mod = 0
	}
	events, _ := w.etcd.Events(w.etcd.Compacted(), []byte(wire.Tail(lock)), nil)
	for _, e := range events {
		if e.Kv.ModRevision < revision {
			if mod = e.Kv.ModRevision; e.Type == mvccpb.DELETE {
				mod = 0
			}
		}
	}
	return mod
}

// unread are operations of reads whose answers do not matter to a machine.
var unread = map[message.Name]int{message.ReadLine: 1, message.ReadFar: 1, message.ReadBusy: 1}

// mustNotMatter checks that a machine does the same whatever such an operation has read.
func (w *World) mustNotMatter(s *slot, resp *pb.TxnResponse) {
	i, ok := unread[s.request.Name]
	if !ok {
		return
	}
	without := &pb.TxnResponse{Header: resp.Header, Succeeded: resp.Succeeded, Responses: slices.Clone(resp.Responses)}
	without.Responses[i] = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}}
	one, other := s.m, s.m
	did := one.Step(translate.Answer(s.place, s.request, resp))
	if !reflect.DeepEqual(did, other.Step(translate.Answer(s.place, s.request, without))) || one.State() != other.State() {
		w.errf("operation %d of %s matters", i, s.request.Name)
	}
}

// ahead returns what stands before a place that was created in a revision: the newest older place,
// else K. Who shares the lock does not stand before others who do.
func (w *World) ahead(than int64, shares bool) string {
	newest := &absent
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if shares && wire.IsShared(lock, kv) {
			continue
		}
		if wire.IsPlace(lock, kv) && kv.CreateRevision < than && kv.CreateRevision > newest.CreateRevision {
			newest = kv
		}
	}
	if newest == &absent {
		newest = w.get(lock)
	}
	return string(newest.Key)
}

// tailChanged notes for each place that somebody has joined behind it. The first to do so must not
// be somebody who leaves, and puts the tail back.
func (w *World) tailChanged(name message.Name) {
	now := w.etcd.Revision()
	for _, s := range w.slots {
		kv := w.get(s.place.Key)
		if s.followed || kv.CreateRevision == 0 || kv.CreateRevision == now {
			continue
		}
		if s.followed = true; name == message.Leave && s.place.Linked {
			w.errf("for %s the first change of the tail is that somebody leaves", s.place.Key)
		}
	}
}

// mustBeInOrder checks, after a write, that whoever has got the lock by it is the oldest, and that
// the tail, if it names a place that is there, names the newest linked one.
func (w *World) mustBeInOrder() {
	key, tail := w.get(lock), w.get(wire.Tail(lock))
	var holder, oldest, newest, named *mvccpb.KeyValue
	link, _ := wire.ParseLink(lock, string(tail.Value))
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if !wire.IsPlace(lock, kv) {
			continue
		}
		if kv.ModRevision == key.ModRevision {
			holder = kv
		}
		if oldest == nil || kv.CreateRevision < oldest.CreateRevision {
			oldest = kv
		}
		if isLinked(kv) && (newest == nil || kv.CreateRevision > newest.CreateRevision) {
			newest = kv
		}
		if string(kv.Key) == link.Place {
			named = kv
		}
	}
	isGranted := key.ModRevision == w.etcd.Revision()
	if isGranted && holder != nil && holder.CreateRevision != oldest.CreateRevision {
		w.errf("%s got the lock before %s", holder.Key, oldest.Key)
	}
	if named != nil && named.CreateRevision != newest.CreateRevision {
		w.errf("the tail names %s, and %s is newer", named.Key, newest.Key)
	}
}

func isLinked(kv *mvccpb.KeyValue) bool {
	from, to := wire.LinkedRange(lock)
	return string(kv.Key) >= from && string(kv.Key) < to && !wire.IsShared(lock, kv)
}

// mustShareInTurn checks, of a request by which somebody shares the lock, that nobody who does not
// stands before it, nor has put K there.
func (w *World) mustShareInTurn(s *slot, r message.Request) {
	if !s.place.Shared || !r.Joins() && !r.Claims() {
		return
	}
	if w.get(lock).CreateRevision > 0 {
		w.errf("%s shares the lock, and K is there", s.place.Key)
	}
	own := w.get(s.place.Key).CreateRevision
	if own == 0 || own != w.get(s.place.Key).ModRevision {
		w.errf("%s shares the lock, and is not there as it was", s.place.Key)
	}
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if wire.IsPlace(lock, kv) && !wire.IsShared(lock, kv) && kv.CreateRevision < own {
			w.errf("%s shares the lock before %s has it", s.place.Key, kv.Key)
		}
	}
}
