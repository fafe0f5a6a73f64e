package model

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

func (w *World) leaseMoves(i int, l *lease, a *moves) {
	used := w.isUsed(l)
	if !l.over && !l.gone && used {
		a.add(expiry, "validity ends", i, 0, (*World).endValidity)
		if !l.grace {
			a.add(expiry, "the grace begins", i, 0, (*World).beginGrace)
		}
		a.add(force, "the operator revokes a lease", i, 0, (*World).revoke)
	}
	switch {
	case l.remains && !l.gone && !used:
		a.add(sure, "a lease is given up", i, 0, func(w *World, i, _ int) { w.expire(w.leases[i]) })
	case l.over && !l.gone:
		a.add(sure, "a lease runs out", i, 0, func(w *World, i, _ int) { w.expire(w.leases[i]) })
		if !l.told && used && !w.isLosing(l) {
			a.add(possible, "a lease is renewed after all", i, 0, func(w *World, i, _ int) { w.leases[i].over = false })
		}
	case l.gone && !l.told && used:
		a.add(sure, "a lease is found to be gone", i, 0, func(w *World, i, _ int) { w.leaseLost(w.leases[i]) })
	}
}

// isLosing reports whether a lock is held under a lease, or was lost with it: then the lease is not
// renewed any more when validity has ended.
func (w *World) isLosing(l *lease) bool {
	return slices.ContainsFunc(w.slots, func(s *slot) bool {
		return s.lease == l.id && (s.m.State == standing.Held || s.m.State == standing.Lost)
	})
}

// endValidity lets validity end. If that loses a lock, the lease is given up.
func (w *World) endValidity(i, _ int) {
	l := w.leases[i]
	l.over = true
	held := false
	for _, s := range slices.Clone(w.slots) {
		if s.lease == l.id {
			held = held || s.m.State == standing.Held
			w.step(s, message.ValidityOver{})
		}
	}
	if held {
		w.leaseLost(l)
	}
}

func (w *World) beginGrace(i, _ int) {
	l := w.leases[i]
	l.grace = true
	for _, s := range slices.Clone(w.slots) {
		if s.lease == l.id {
			w.step(s, message.GraceBegun{})
		}
	}
}

// kill ends the process of a user, and with it all under its lease. The lease runs out.
func (w *World) kill(i, _ int) {
	of := w.users[i]
	for j := range w.users {
		if u := &w.users[j]; j == i || of.session > 0 && u.session == of.session {
			u.turns, u.works, u.told, u.forced, u.broken, u.lease = 0, false, false, false, false, 0
		}
	}
	for _, l := range w.leases {
		if l.id == of.lease || of.session > 0 && l.session == of.session {
			l.over, l.told = true, true
			w.killLease(l)
		}
	}
}

func (w *World) killLease(l *lease) {
	for _, s := range slices.Clone(w.slots) {
		if s.lease != l.id {
			continue
		}
		if s.asked && s.answer == nil && !translate.IsRead(s.place, s.request) {
			w.sendLate(s)
		}
		if n := w.noteOf(s); n >= 0 {
			w.notes[n].killed = true
		}
		w.slots = slices.DeleteFunc(w.slots, func(one *slot) bool { return one == s })
	}
}

// operatorMoves are what somebody does with etcdctl.
func (w *World) operatorMoves(a *moves) {
	switch key := w.get(lock); {
	case string(key.Value) == byHand:
		a.add(sure, "the operator deletes its K", -1, 0, func(w *World, _, _ int) { w.remove(lock) })
	case key.CreateRevision > 0:
		a.add(operator, "the operator deletes K", -1, 0, func(w *World, _, _ int) { w.takeKey(); w.remove(lock) })
		fallthrough
	default:
		a.add(operator, "the operator puts K", -1, 0, func(w *World, _, _ int) {
			w.takeKey()
			w.put(&pb.PutRequest{Key: []byte(lock), Value: []byte(byHand)})
		})
	}
	for i, s := range w.slots {
		if w.get(s.place.Key).CreateRevision == 0 {
			continue
		}
		a.add(force, "@: the operator overwrites its place", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			w.touched = true
			w.takePlace(s)
			w.put(&pb.PutRequest{Key: []byte(s.place.Key), Value: []byte(byHand), IgnoreLease: true})
		})
		if s.place.Mode.Slots() > 0 { // a lock, but no slot, is handed out by that
			a.add(force, "@: the operator writes its place as it is", i, 0, func(w *World, i, _ int) {
				s := w.slots[i]
				w.touched, w.jumps = true, true
				w.takePlace(s)
				w.put(&pb.PutRequest{Key: []byte(s.place.Key), IgnoreValue: true, IgnoreLease: true})
			})
		}
		a.add(force, "@: the operator deletes its place", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			w.touched = true
			w.takePlace(s)
			w.remove(s.place.Key)
		})
	}
	w.operatorAndSlots(a)
	if w.canWipe() {
		a.add(wipe, "etcd loses everything", -1, 0, (*World).wipe)
	}
	w.foreignMoves(a)
}

// operatorAndSlots are what somebody does with the slots of a semaphore. One that was overwritten
// without its lease is deleted in the end.
func (w *World) operatorAndSlots(a *moves) {
	for kv := range w.etcd.Below(wire.Prefix(lock)) {
		slots, _ := wire.SlotsOf(lock, string(kv.Key))
		of := w.slotWith(kv)
		switch key := string(kv.Key); {
		case slots == 0 || wire.IsPlace(lock, kv):
		case string(kv.Value) == byHand && kv.Lease == 0:
			a.add(sure, "the operator deletes its slot", -1, 0, func(w *World, _, _ int) { w.remove(key) })
		case of >= 0:
			a.add(force, "@: the operator deletes its slot", of, 0, func(w *World, i, _ int) { w.takeSlot(i, w.remove) })
			for _, keeps := range []bool{false, true} {
				a.add(force, "@: the operator overwrites its slot", of, 0, func(w *World, i, _ int) {
					w.takeSlot(i, func(key string) {
						w.put(&pb.PutRequest{Key: []byte(key), Value: []byte(byHand), IgnoreLease: keeps})
					})
				})
			}
		}
	}
}

// takeSlot does something to the slot of a place, which somebody loses with that.
func (w *World) takeSlot(i int, do func(key string)) {
	s := w.slots[i]
	w.touched = true
	w.takePlace(s)
	do(s.place.At(record.SeatOf(w.get(s.place.Key).Value)).LockKey())
}

// slotWith returns who has a slot of a semaphore, -1 if nobody has.
func (w *World) slotWith(key *mvccpb.KeyValue) int {
	return slices.IndexFunc(w.slots, func(s *slot) bool {
		own := w.get(s.place.Key)
		seat := record.SeatOf(own.Value)
		return seat > 0 && own.ModRevision == key.ModRevision && s.place.At(seat).LockKey() == string(key.Key)
	})
}

// takeKey takes note that what an operator is about to do with K ends a holding, which may not have
// been told of. Who shares the lock goes on.
func (w *World) takeKey() {
	held := w.get(lock).ModRevision
	for _, s := range w.slots {
		if kv := w.get(s.place.Key); s.place.Mode != mode.Shared && s.m.Seat == 0 && (kv.CreateRevision > 0 && kv.ModRevision == held || s.m.Token != 0) {
			w.takePlace(s)
		}
	}
}

// takePlace takes note that somebody loses its place, or the lock, by force. It is told by a watch,
// or by a read after the next renewal.
func (w *World) takePlace(s *slot) {
	if s.user < 0 {
		return
	}
	w.users[s.user].forced = true
	s.observes = s.observes || !s.watches[message.OnLock].on
}

// revoke has an operator end a lease.
func (w *World) revoke(i, _ int) {
	l := w.leases[i]
	for _, s := range w.slots {
		if s.lease == l.id {
			w.takePlace(s)
		}
	}
	w.expire(l)
}

// canWipe reports whether etcd may lose everything: once, and where there is no Mutex, which would
// not notice.
func (w *World) canWipe() bool { return !w.wiped && len(w.mutexes) == 0 }

// wipe has etcd lose all it has. Revisions go on here. What follows is not told by watches.
func (w *World) wipe(_, _ int) {
	w.wiped = true
	for _, l := range w.leases {
		if l.gone {
			continue
		}
		for _, s := range w.slots {
			if s.lease == l.id {
				w.takePlace(s)
			}
		}
		l.wiped = true
		w.expire(l)
	}
	for _, key := range w.left() {
		w.remove(key)
	}
	if w.pauser.lease > 0 {
		w.endPause()
	}
	for _, s := range w.slots {
		for of := range s.watches {
			if x := &s.watches[of]; x.created {
				x.next = w.etcd.Revision() + 1
			}
		}
	}
}

// foreign is a key below K/ that is not a place of K.
const foreign = lock + "/foreign"

func (w *World) foreignMoves(a *moves) {
	if w.get(foreign).CreateRevision > 0 {
		a.add(sure, "somebody deletes a key below K/", -1, 0, func(w *World, _, _ int) { w.remove(foreign) })
		return
	}
	a.add(stranger, "somebody puts a key below K/ that is not a place", -1, 0, func(w *World, _, _ int) {
		w.put(&pb.PutRequest{Key: []byte(foreign)})
	})
}
