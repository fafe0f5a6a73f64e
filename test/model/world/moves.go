package world

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

// A Cast is who takes part.
type Cast struct {
	Private, Session, Unlinked, Try, Mutexes int
	Turns                                    int
}

// New returns a world in which nothing has happened.
func New(c Cast) *World {
	w := &World{etcd: smalletcd.New(1)}
	add := func(name string, n int, change func(*user)) {
		for i := range n {
			u := &user{name: name + string(rune('a'+i)), turns: c.Turns, linked: true}
			change(u)
			w.users = append(w.users, u)
		}
	}
	add("own-", c.Private, func(u *user) { u.lone = len(w.users)%2 == 0 })
	add("unlinked-", c.Unlinked, func(u *user) { u.linked = false })
	add("try-", c.Try, func(u *user) { u.try = true })
	add("session-", c.Session, func(u *user) { u.lease = w.sessionOf(u) })
	for range c.Mutexes {
		w.mutex = append(w.mutex, &mutex{turns: c.Turns})
	}
	return w
}

// A Move is something that can happen next.
type Move struct {
	Name  string
	Fault bool
	Do    func()
}

// Moves returns everything that can happen next.
func (w *World) Moves() (all []Move) {
	add := func(fault bool, name string, do func()) { all = append(all, Move{name, fault, do}) }
	for _, u := range w.users {
		w.userMoves(u, add)
	}
	for _, s := range w.slots {
		w.slotMoves(s, add)
	}
	for _, l := range w.allLeases() {
		w.leaseMoves(l, add)
	}
	for i, late := range w.late {
		drop := func() {
			w.late = append(w.late[:i:i], w.late[i+1:]...)
			if s := late.slot; s != nil {
				s.joins--
				w.settle(s)
			}
		}
		add(false, "a late request is lost", drop)
		add(false, "a late request is applied", func() { w.txn(late.txn); drop() })
	}
	for _, m := range w.mutex {
		m.moves(w, add)
	}
	w.operatorMoves(add)
	return all
}

type adder func(fault bool, name string, do func())

func (w *World) allLeases() (all []*lease) {
	all = append(all, w.leases...)
	for _, u := range w.users {
		if u.lease != nil && !u.lease.shared {
			all = append(all, u.lease)
		}
	}
	return all
}

func (w *World) userMoves(u *user, add adder) {
	switch {
	case u.slot == nil && u.lease != nil && !u.lease.shared && (u.lease.revoke || u.lease.told || u.lease.over):
		add(false, "revoke", func() { w.etcd.Expire(u.lease.id); w.check(); u.lease.gone = true; u.lease = nil })
	case u.slot == nil && u.turns > 0:
		add(false, "begin", func() {
			if u.lease == nil {
				u.lease = w.newLease(false)
			}
			if u.lease.shared && (u.lease.told || u.lease.over) {
				u.lease.told = true
				u.lease = w.sessionOf(u)
			}
			w.begin(u)
		})
	case u.slot != nil && u.works:
		add(false, "work ends", func() { u.works = false; w.step(u.slot, protocol.Release{}) })
		if !u.slot.watches[protocol.OnLock].on {
			add(false, "the work lasts", func() { w.step(u.slot, protocol.Lasting{}) })
		}
	case u.slot != nil && u.told:
		add(false, "after the loss", func() { u.told = false; w.step(u.slot, protocol.Release{}) })
	case u.slot != nil && u.slot.m.State() != protocol.Leaving && !u.slot.ended:
		add(true, "cancel", func() { w.cancel(u.slot) })
	}
}

// cancel has a machine give up. The request that is under way may have any outcome.
func (w *World) cancel(s *slot) {
	w.step(s, protocol.Cancel{})
	if s.asked {
		w.giveUp(s, true)
	}
}

// giveUp ends the tries of a request. The last one may come late.
func (w *World) giveUp(s *slot, late bool) {
	if late {
		w.sendLate(s)
	}
	s.asked = false
	w.step(s, protocol.Answer{Outcome: protocol.Unknown, Repeated: true})
}

func (w *World) sendLate(s *slot) {
	l := lateRequest{txn: translate.Txn(s.place, s.request, s.again)}
	if isJoin(s.request) {
		l.slot = s
		s.joins++
	}
	w.late = append(w.late, l)
	s.again = true
}

func isRead(r protocol.Request) bool {
	switch r.Name {
	case protocol.ReadBusy, protocol.ReadNewest, protocol.ReadLine, protocol.ReadFar, protocol.ReadHistory,
		protocol.ReadState, protocol.ReadTail, protocol.ReadWritten:
		return true
	}
	return false
}

func (w *World) slotMoves(s *slot, add adder) {
	if s.asked {
		add(false, "answer "+string(s.request.Name), func() { w.answer(s); w.settle(s) })
		if !isRead(s.request) {
			add(true, "the answer is lost: "+string(s.request.Name), func() { w.txn(translate.Txn(s.place, s.request, s.again)); s.again = true })
			add(true, "it comes late: "+string(s.request.Name), func() { w.sendLate(s) })
			add(true, "unknown: "+string(s.request.Name), func() { w.giveUp(s, true) })
		}
	}
	for of := range s.watches {
		w.watchMoves(s, protocol.Watched(of), add)
	}
	if s.observes {
		add(false, "observe", func() { w.observe(s) })
	}
	if s.timer {
		add(false, "time", func() { s.timer = false; w.step(s, protocol.Elapsed{}) })
	}
}

// settle tells a machine that no request to join is late.
func (w *World) settle(s *slot) {
	if s.joins == 0 && !(s.asked && isJoin(s.request)) {
		w.step(s, protocol.Settled{})
	}
}

func isJoin(r protocol.Request) bool {
	return r.Name == protocol.AcquireIfFree || r.Name == protocol.AcquireOrJoin
}

func (w *World) observe(s *slot) {
	s.observes = false
	ahead := s.m.Ahead()
	resp, err := w.etcd.Txn(wire.StateRead(wire.StateOps(lock, s.place.Key, ahead)))
	if err != nil {
		w.errf("%v", err)
		return
	}
	w.step(s, translate.Observation(resp, 0, ahead))
}

func (w *World) watchMoves(s *slot, of protocol.Watched, add adder) {
	x := &s.watches[of]
	switch {
	case !x.on:
	case !x.created:
		add(false, "watch created", func() {
			x.created = true
			since := w.etcd.Revision()
			if x.next == 0 {
				x.next = since + 1
			}
			w.step(s, protocol.Watching{Of: of, Since: since})
		})
	default:
		events, err := w.etcd.Events(x.next, []byte(x.key), nil)
		if err != nil || len(events) == 0 {
			return
		}
		add(false, "event", func() {
			x.next = events[0].Kv.ModRevision + 1
			w.step(s, translate.Event(s.place, of, events[0]))
		})
	}
}

func (w *World) leaseMoves(l *lease, add adder) {
	used := false
	for _, s := range w.slots {
		used = used || s.lease == l
	}
	switch {
	case !l.over && !l.gone && used:
		add(true, "validity ends", func() {
			l.over = true
			held := false
			for _, s := range append([]*slot(nil), w.slots...) {
				if s.lease == l {
					held = held || s.m.State() == protocol.Held
					w.step(s, protocol.ValidityOver{})
				}
			}
			if held {
				w.leaseLost(l)
			}
		})
	case l.over && !l.gone:
		add(false, "the lease runs out", func() { l.gone = true; w.etcd.Expire(l.id); w.check() })
	case l.gone && !l.told:
		add(false, "the lease is found to be gone", func() { w.leaseLost(l) })
	}
	if l.shared && !l.gone {
		for _, s := range w.slots {
			if s.lease == l && s.m.State() == protocol.Unconfirmed {
				add(false, "renewed", func() { w.step(s, protocol.Renewed{}) })
			}
		}
	}
}

func (w *World) operatorMoves(add adder) {
	add(true, "the operator deletes K", func() { w.force(lock, false); w.etcd.Txn(wire.RemoveKey(lock, w.get(lock).ModRevision)) })
	add(true, "the operator puts K", func() { w.force(lock, false); w.put(&pb.PutRequest{Key: []byte(lock), Value: []byte(byHand)}) })
	if string(w.get(lock).Value) == byHand {
		add(false, "the operator deletes its K", func() { w.etcd.Txn(wire.RemoveKey(lock, w.get(lock).ModRevision)) })
	}
	for _, s := range w.slots {
		if kv := w.get(s.place.Key); kv.CreateRevision > 0 {
			add(true, "the operator overwrites "+s.place.Key, func() {
				w.force(s.place.Key, true)
				w.put(&pb.PutRequest{Key: []byte(s.place.Key), Value: []byte(byHand), IgnoreLease: true})
			})
			add(true, "the operator deletes "+s.place.Key, func() {
				w.force(s.place.Key, true)
				w.etcd.Txn(wire.Remove(s.place, w.get(s.place.Key).ModRevision, false))
			})
		}
	}
}

func (w *World) put(r *pb.PutRequest) {
	w.etcd.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: r}}}})
}

// force takes note that what an operator is about to do ends a holding, which may not have been
// told of.
func (w *World) force(key string, place bool) {
	held := w.get(lock).ModRevision
	for _, s := range w.slots {
		if s.user == nil || place && s.place.Key != key {
			continue
		}
		if kv := w.get(s.place.Key); kv.CreateRevision > 0 && kv.ModRevision == held || s.m.Token() != 0 || place {
			s.user.forced = true
			s.observes = s.observes || !s.watches[protocol.OnLock].on // after the next renewal
		}
	}
}

// Done reports whether all have had their turns, and nothing goes on.
func (w *World) Done() bool {
	for _, u := range w.users {
		if u.turns > 0 || u.slot != nil {
			return false
		}
	}
	for _, m := range w.mutex {
		if m.turns > 0 {
			return false
		}
	}
	return len(w.slots) == 0 && len(w.late) == 0
}

// Left returns the keys that there are.
func (w *World) Left() (keys []string) {
	for _, name := range []string{lock, wire.Tail(lock)} {
		if w.get(name).CreateRevision > 0 {
			keys = append(keys, name)
		}
	}
	names, _ := w.etcd.Txn(wire.NamesRead(lock, 1<<60))
	for _, kv := range wire.KeysOf(names, 0) {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
