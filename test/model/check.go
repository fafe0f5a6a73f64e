package model

import (
	"reflect"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
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
	world             *World
}

func (w *World) scene(s *slot) scene {
	c := scene{lock: w.get(lock), place: &absent, tail: w.get(wire.Tail(lock)), named: &absent, of: s.place, world: w}
	c.place, c.newest = w.get(s.place.Key), w.newest()
	if link, ok := wire.ParseLink(lock, string(c.tail.Value)); ok {
		c.names, c.named = link.Place, w.get(link.Place)
	}
	return c
}

// keys returns K and the place as a machine is told of them.
// With a seat that is its slot, in place of K.
func (c scene) keys(seat int) message.Keys {
	key := c.lock
	if seat > 0 {
		key = c.world.get(c.of.At(seat).LockKey())
	}
	return message.Keys{Lock: kvOf(key), Place: kvOf(c.place)}
}

func kvOf(kv *mvccpb.KeyValue) message.KV {
	return message.KV{Create: kv.CreateRevision, Mod: kv.ModRevision, Lease: kv.Lease, Value: string(kv.Value), Seat: record.SeatOf(kv.Value)}
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
	case isThere && r.Name != message.Pass && r.Name != message.TakeSlot:
		w.errf("%s took a K that was there", r.Name)
	case isThere && string(before.lock.Value) == byHand:
		w.errf("a pass took a K that the operator put there")
	}
	joined := before.place.CreateRevision == 0 && now.place.CreateRevision > 0 && now.place.ModRevision != now.lock.ModRevision && record.SeatOf(now.place.Value) == 0
	if joined && now.of.Linked && now.names != now.of.Key {
		w.errf("%s has joined, and the tail does not name it", now.of.Key)
	}
	if r.Joins() && before.place.CreateRevision > 0 && now.place.ModRevision > before.place.ModRevision {
		w.errf("%s is asked for again, and written", now.of.Key)
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
		is = a.Ahead.Key == w.ahead(r.Rev, s.place) || w.touched && s.place.Mode.Slots() > 0
	case r.Name == message.TakeSlot && a.Outcome == message.Refused:
		is = a.Keys == before.keys(0) && a.Free == w.freeSlot(s.place, r.Slot)
	case r.Name == message.ReadState, r.Name == message.LeaveLost, a.Outcome == message.Refused && (r.Claims() || r.Name == message.Leave):
		is = a.Keys == before.keys(r.Seat)
	case r.Name == message.ReadBusy:
		is = a.Keys.Lock == kvOf(before.lock) && a.Some == w.isMixed(s.place) && a.Free == w.freeSlot(s.place, r.Slot)
	case r.Name == message.ReadKind:
		is = a.Kind == w.kind()
	case r.Name == message.ReadNewest:
		is = a.Some == (wire.IsPlace(lock, before.newest) || translate.KindOf(lock, before.newest) > message.Plain)
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
		if a.Ours && s.place.Mode != mode.Shared && a.Keys != before.keys(0) {
			w.errf("%s has a place, and does not learn what there is", s.place.Key)
		}
	case s.request.Name == message.AcquireIfFree && s.place.Mode.Slots() > 0:
		if a.Free != w.freeSlot(s.place, s.request.Slot) && !(a.Free < 0 && w.anyWaits(s.place)) {
			w.errf("%s learns that slot %d is free", s.place.Key, a.Free)
		}
	case !a.Else:
	case a.Keys.Lock != kvOf(before.lock),
		(s.place.Linked || s.place.Mode == mode.Shared) && before.named.CreateRevision > 0 && a.Ahead.Key != string(before.named.Key),
		!s.place.Linked && s.place.Mode != mode.Shared && wire.IsPlace(lock, newest) && a.Ahead.Key != string(newest.Key):
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

// mustNotMatter checks that a machine does the same, and remembers the same, whatever such an
// operation has read.
func (w *World) mustNotMatter(s *slot, resp *pb.TxnResponse) {
	if i, ok := unread[s.request.Name]; ok {
		w.operationMustNotMatter(s, resp, i)
	}
	if s.request.Name == message.ReadBusy { // the last one is for the user as well
		w.operationMustNotMatter(s, resp, len(resp.Responses)-1)
	}
}

func (w *World) operationMustNotMatter(s *slot, resp *pb.TxnResponse, i int) {
	without := &pb.TxnResponse{Header: resp.Header, Succeeded: resp.Succeeded, Responses: slices.Clone(resp.Responses)}
	without.Responses[i] = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{}}}
	one, other := s.m, s.m
	did, also := one.Step(w.answer(s, resp)), other.Step(w.answer(s, without))
	if !reflect.DeepEqual(did, also) || !reflect.DeepEqual(one, other) {
		w.errf("operation %d of %s matters", i, s.request.Name)
	}
}

// ahead returns what stands before a place that was created in a revision: the newest older place,
// else K. Who shares the lock does not stand before others who do.
func (w *World) ahead(than int64, of wire.Place) string {
	newest := &absent
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		slots, _ := wire.SlotsOf(lock, string(kv.Key))
		if of.Mode == mode.Shared && wire.IsShared(lock, kv) || of.Mode.Slots() > 0 && slots == of.Mode.Slots() && record.SeatOf(kv.Value) > 0 {
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
		if kv.ModRevision == key.ModRevision && record.SeatOf(kv.Value) == 0 {
			holder = kv
		}
		if (record.SeatOf(kv.Value) > 0 || string(kv.Value) == byHand) && key.ModRevision == w.etcd.Revision() && w.seatedWith(key) {
			continue // it does not stand before those who wait
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
	if isGranted && !w.jumps && holder != nil && holder.CreateRevision != oldest.CreateRevision {
		w.errf("%s got the lock before %s", holder.Key, oldest.Key)
	}
	if at := w.get(link.Place); record.SeatOf(at.Value) > 0 && !w.touched {
		w.errf("the tail names %s, which has a slot", at.Key)
	}
	if named != nil && named.CreateRevision != newest.CreateRevision {
		w.errf("the tail names %s, and %s is newer", named.Key, newest.Key)
	}
}

func isLinked(kv *mvccpb.KeyValue) bool {
	from, to := wire.LinkedRange(lock)
	slots, _ := wire.SlotsOf(lock, string(kv.Key))
	return slots > 0 || string(kv.Key) >= from && string(kv.Key) < to && !wire.IsShared(lock, kv)
}

// seatedWith reports whether K is written for somebody who wants a slot.
func (w *World) seatedWith(key *mvccpb.KeyValue) bool {
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if slots, _ := wire.SlotsOf(lock, string(kv.Key)); slots > 0 && wire.IsPlace(lock, kv) && kv.ModRevision == key.ModRevision && record.SeatOf(kv.Value) == 0 {
			return true
		}
	}
	return false
}

// mustSitInTurn checks, of whoever has got a slot by a write, that nobody stands before it, and
// that K is absent, or passed on; and of everybody who has one, that the slot is of the same
// revision.
func (w *World) mustSitInTurn() {
	for own := range w.etcd.Below(wire.Prefix(lock)) {
		slots, _ := wire.SlotsOf(lock, string(own.Key))
		seat := record.SeatOf(own.Value)
		if slots == 0 || !wire.IsPlace(lock, own) || seat == 0 {
			continue
		}
		if at := w.get(wire.Slot(lock, slots, seat-1)); at.CreateRevision != own.ModRevision && !w.touched {
			w.errf("%s has slot %d, which another place has", own.Key, seat-1)
		}
		if own.ModRevision != w.etcd.Revision() {
			continue
		}
		if key := w.get(lock); key.CreateRevision > 0 && key.ModRevision != own.ModRevision {
			w.errf("%s got a slot, and K is there", own.Key)
		}
		for kv := range w.etcd.Below(wire.Prefix(lock)) {
			of, _ := wire.SlotsOf(lock, string(kv.Key))
			sits := of == slots && (record.SeatOf(kv.Value) > 0 || string(kv.Value) == byHand)
			if wire.IsPlace(lock, kv) && kv.CreateRevision < own.CreateRevision && !sits && !w.jumps {
				w.errf("%s got a slot before %s", own.Key, kv.Key)
			}
		}
	}
}

// freeSlot returns a slot that nobody has, from one on, -1 if all are taken, or the place
// wants none.
func (w *World) freeSlot(p wire.Place, from int) int {
	for n := range p.Mode.Slots() {
		if i := (from + n) % p.Mode.Slots(); w.get(wire.Slot(lock, p.Mode.Slots(), i)).CreateRevision == 0 {
			return i
		}
	}
	return -1
}

// anyWaits reports whether somebody waits for a slot of the semaphore of a place.
func (w *World) anyWaits(p wire.Place) bool {
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		slots, _ := wire.SlotsOf(lock, string(kv.Key))
		if slots == p.Mode.Slots() && wire.IsPlace(lock, kv) && record.SeatOf(kv.Value) == 0 {
			return true
		}
	}
	return false
}

// isMixed reports whether there is something of another kind than a place's, or of a stranger.
// Whoever wants no slot sees strangers by other reads.
func (w *World) isMixed(p wire.Place) bool {
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		if slots, _ := wire.SlotsOf(lock, string(kv.Key)); slots != p.Mode.Slots() && slots+p.Mode.Slots() > 0 {
			return true
		}
	}
	return false
}

// kind returns of which kind the line is: of that of its oldest place.
func (w *World) kind() message.Kind {
	oldest := &absent
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		isOlder := oldest == &absent || kv.CreateRevision < oldest.CreateRevision
		if translate.KindOf(lock, kv) != message.Stranger && isOlder {
			oldest = kv
		}
	}
	if oldest == &absent {
		return message.Stranger
	}
	return translate.KindOf(lock, oldest)
}

// mustShareInTurn checks, of a request by which somebody shares the lock, that nobody who does not
// stands before it, nor has put K there.
func (w *World) mustShareInTurn(s *slot, r message.Request) {
	if s.place.Mode != mode.Shared || !r.Joins() && !r.Claims() {
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
