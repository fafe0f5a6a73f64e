package model

import (
	"slices"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
)

// puts reports whether etcd refuses a request if it has no space. It takes deletions also then.
// Claims are made until there is space.
func puts(r message.Request) bool { return r.Joins() || r.WritesForOthers() }

// requestMoves are what can become of a request that is under way.
func (w *World) requestMoves(i int, s *slot, a *moves) {
	switch {
	case !s.asked:
		return
	case s.answer != nil:
		a.add(sure, "@ is answered", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			answer := *s.answer
			s.answer = nil
			w.tell(s, answer)
		})
		return
	case s.set && !s.joint && s.request.Joins():
		a.add(sure, "@ does not ask for its lock alone", i, 0, func(w *World, i, _ int) { w.decline(w.slots[i], message.Refused) })
		return
	case s.joint:
		a.add(possible, "@: a request is refused for the sake of another lock", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			s.others = true
			w.tell(s, w.ask(s))
		})
		a.add(possible, "@: a request is refused, as there are others in it", i, 0, func(w *World, i, _ int) { w.slots[i].joint = w.slots[i].again })
	case s.set && s.m.State == standing.Joining:
		a.add(possible, "@ need not ask, as another lock is not free", i, 0, func(w *World, i, _ int) { w.decline(w.slots[i], message.Unknown) })
	}
	a.add(sure, "@: a request is applied and answered", i, 0, func(w *World, i, _ int) { w.tell(w.slots[i], w.ask(w.slots[i])) })
	a.add(slowAnswer, "@: a request is applied, and the answer takes its time", i, 0, func(w *World, i, _ int) {
		answer := w.ask(w.slots[i])
		w.slots[i].answer = &answer
	})
	a.add(refusal, "@ must not do what it asks for", i, 0, refuse(message.Denied, false))
	if puts(s.request) {
		a.add(refusal, "@: etcd has no space", i, 0, refuse(message.NoSpace, false))
		a.add(refusal, "@: etcd has no space any more", i, 0, refuse(message.NoSpace, true))
	}
	if l := w.leaseOf(s.lease); l.session == 0 && s.ended {
		a.add(possible, "@: its lease is revoked instead", i, 0, (*World).abandon)
	}
	if translate.IsRead(s.place, s.request) {
		return
	}
	a.add(lostAnswer, "@: the answer is lost", i, 0, func(w *World, i, _ int) {
		s := w.slots[i]
		w.txn(s, s.request, s.txn())
		s.again = true
	})
	a.add(lostAnswer, "@: a request comes late, and is made again", i, 0, func(w *World, i, _ int) { w.sendLate(w.slots[i]) })
	a.add(lostAnswer, "@: a request comes late, and is given up", i, 0, func(w *World, i, _ int) { w.giveUp(w.slots[i]) })
}

// decline ends a try of a set, the next request of which is not sent.
func (w *World) decline(s *slot, o message.Outcome) {
	w.step(s, message.Cancel{})
	w.tell(s, message.Answer{Outcome: o})
}

// refuse returns a move that has etcd refuse a request, and perhaps apply it all the same.
func refuse(o message.Outcome, applied bool) func(w *World, i, of int) {
	return func(w *World, i, _ int) {
		s := w.slots[i]
		if applied {
			w.txn(s, s.request, s.txn())
		}
		if o == message.Denied && (s.request.Tail || s.request.Name == message.ReadTail) {
			w.leaseOf(s.lease).remains = true
		}
		w.tell(s, message.Answer{Outcome: o, Repeated: s.again})
	}
}

// tell tells a machine what became of its request.
func (w *World) tell(s *slot, a message.Answer) {
	joins := s.request.Joins()
	if l := w.leaseOf(s.lease); a.Outcome == message.Rejected && l.gone {
		w.leaseLost(l)
	}
	s.refused = s.refused || a.Outcome == message.Denied
	s.doubt = s.doubt || a.Outcome == message.NoSpace || a.Repeated
	s.asked, s.joint, s.others = false, false, false
	w.step(s, a)
	if joins {
		w.settle(s)
	}
}

// settle tells a machine that no request to join is late, if that is so.
func (w *World) settle(s *slot) {
	if s.joins == 0 && !(s.asked && s.request.Joins()) {
		w.step(s, message.Settled{})
	}
}

// giveUp ends the tries of a request. The last one may come late.
func (w *World) giveUp(s *slot) {
	joins := s.request.Joins()
	repeated := true
	s.doubt = true
	switch {
	case s.answer != nil: // it was applied, and the answer is not waited for
		s.answer = nil
	case translate.IsRead(s.place, s.request):
		repeated = false
	default:
		w.sendLate(s)
	}
	s.asked, s.joint = false, false
	w.step(s, message.Answer{Outcome: message.Unknown, Repeated: repeated})
	if joins {
		w.settle(s)
	}
}

// sendLate leaves a try on its way, and another one may follow.
func (w *World) sendLate(s *slot) {
	r := late{place: s.place, request: s.request, again: s.again, sender: s.n, lease: s.lease}
	if r.request.Joins() {
		s.joins++
	}
	w.late = append(w.late, r)
	s.again = true
}

// dropLate ends a late request.
func (w *World) dropLate(i, _ int) {
	r := w.late[i]
	w.late = slices.Delete(slices.Clone(w.late), i, i+1)
	if s := w.sender(r); s != nil && r.request.Joins() {
		s.joins--
		w.settle(s)
	}
}

func (w *World) sender(r late) *slot {
	for _, s := range w.slots {
		if s.n == r.sender {
			return s
		}
	}
	return nil
}

// applyLate has etcd apply a late request. It must not write anything that its sender does not
// reckon with: who has gone, and whose lease is not about to be revoked, has left nothing on its
// way that would put a key.
func (w *World) applyLate(i, _ int) {
	r := w.late[i]
	revision := w.etcd.Revision()
	w.txn(&slot{place: r.place}, r.request, translate.Txn(r.place, r.request, r.again))
	l := w.leaseOf(r.lease)
	careful := w.sender(r) != nil || l == nil || l.revoke || l.told || l.over || l.gone
	if now := w.get(lock); !careful && (now.ModRevision > revision && now.Lease == r.lease || w.hasNew(r.lease, revision)) {
		w.errf("a late %s has put a key of somebody who has gone", r.request.Name)
	}
	w.dropLate(i, 0)
}

// hasNew reports whether a key was put under a lease after a revision.
func (w *World) hasNew(lease, revision int64) bool {
	for _, key := range w.left() {
		if kv := w.get(key); kv.Lease == lease && kv.CreateRevision > revision {
			return true
		}
	}
	return false
}

// abandon ends a machine that leaves. Its lease is revoked.
func (w *World) abandon(i, _ int) {
	s := w.slots[i]
	w.leaseOf(s.lease).revoke = true
	w.step(s, message.LeaseLost{})
	if s.asked {
		w.giveUp(s)
	}
}
