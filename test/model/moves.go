package model

import (
	"fmt"
	"math"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Kind of move says whether it happens if one waits for long enough.
type Kind uint8

// The kinds. Those from lostAnswer on are faults.
const (
	sure     Kind = iota // it happens sooner or later, if it can
	possible             // it need not happen

	lostAnswer // of a write, or it is lost, or comes late
	slowAnswer // something else is told before it
	cancel     // a user gives up
	expiry     // validity ends, or is about to
	operator   // an operator puts or deletes K
	force      // an operator deletes or overwrites a place, or revokes a lease
	refusal    // etcd does not let somebody read or write, or has no space
	silence    // watches tell nothing
	oldRead    // a read of the state is answered late
	crash      // a process is killed
	wipe       // etcd loses everything
	stranger   // somebody puts a key below K/ that is not a place
	breaks     // an operator asks a holder to stop
	pauses     // an operator asks for a pause
	notes      // it is noted since when somebody holds the lock
	kinds
)

// isFault reports whether a move is a fault.
func (k Kind) isFault() bool { return k > possible }

// A Move is something that can happen next. It is for the world that has returned it, or a clone.
type Move struct {
	Kind Kind
	name string
	who  int // index of the one that it is about
	of   int
	do   func(w *World, who, of int)
}

// Make makes a move.
func (w *World) Make(m Move) {
	m.do(w, m.who, m.of)
	w.tidy()
}

// describe says what a move is.
func (w *World) describe(m Move) string {
	text := m.name
	switch {
	case m.who < 0:
	case m.name[0] == '@':
		text = w.slots[m.who].place.Key + m.name[1:]
		if s := w.slots[m.who]; s.asked {
			text += " (" + string(s.request.Name) + ")"
		}
	default:
		text += fmt.Sprintf(" (%d)", m.who)
	}
	return text
}

// moves collects moves.
type moves struct{ all []Move }

func (a *moves) add(k Kind, name string, who, of int, do func(w *World, who, of int)) {
	a.all = append(a.all, Move{k, name, who, of, do})
}

// Moves returns everything that can happen next. It is overwritten by the next call.
func (w *World) Moves() []Move {
	a := &moves{w.moves[:0]}
	for i := range w.users {
		w.userMoves(i, a)
	}
	for i, s := range w.slots {
		w.requestMoves(i, s, a)
		w.slotMoves(i, s, a)
	}
	for i, l := range w.leases {
		w.leaseMoves(i, l, a)
	}
	for i := range w.late {
		a.add(sure, "a late request is lost", i, 0, (*World).dropLate)
		a.add(possible, "a late request is applied", i, 0, (*World).applyLate)
	}
	for i := range w.mutexes {
		w.mutexMoves(i, a)
	}
	w.operatorMoves(a)
	w.breakMoves(a)
	w.pauseMoves(a)
	w.noteMoves(a)
	w.moves = a.all
	return a.all
}

func (w *World) userMoves(i int, a *moves) {
	u, s := &w.users[i], w.slotOf(i)
	l := w.leaseOf(u.lease)
	switch {
	case s == nil && l != nil && l.session == 0 && (l.revoke || l.told || l.over):
		a.add(sure, "a user revokes its lease", i, 0, func(w *World, i, _ int) {
			w.expire(w.leaseOf(w.users[i].lease))
			w.users[i].lease = 0
		})
	case s == nil && u.turns > 0:
		a.add(sure, "a user begins", i, 0, func(w *World, i, _ int) { w.begin(i) })
	case s == nil:
	case u.works || u.told:
		ends := sure
		if u.forced && !u.told { // nobody can rely on the end of work: it has to be told
			ends = possible
		}
		a.add(ends, "a user ends its work", i, 0, func(w *World, i, _ int) {
			w.users[i].works, w.users[i].told = false, false
			w.step(w.slotOf(i), message.Release{})
		})
		if !s.lasting && u.works {
			a.add(possible, "the work lasts", i, 0, func(w *World, i, _ int) {
				s := w.slotOf(i)
				s.lasting = true
				w.step(s, message.Lasting{})
			})
		}
	case s.m.State < standing.Held && !s.quits:
		a.add(cancel, "a user gives up", i, 0, (*World).cancel)
		if s.asked {
			a.add(cancel, "a user gives up, and what it asked for goes on", i, 0, func(w *World, i, _ int) { w.quit(w.slotOf(i)) })
		}
	}
	if u.turns > 0 || s != nil {
		a.add(crash, "a process is killed", i, 0, (*World).kill)
	}
}

// cancel has a user give up. The request that is under way may have any outcome.
func (w *World) cancel(i, _ int) {
	s := w.slotOf(i)
	w.quit(s)
	if s.asked {
		w.giveUp(s)
	}
}

func (w *World) quit(s *slot) {
	s.quits = true
	w.step(s, message.Cancel{})
}

// slotMoves are what is told to a machine: by watches, reads, and time.
func (w *World) slotMoves(i int, s *slot, a *moves) {
	w.watchMoves(i, s, a)
	waits := s.m.Created() > 0 && s.m.State < standing.Held
	reads := s.m.Created() > 0 && s.m.State < standing.Leaving
	switch {
	case s.read != nil:
		a.add(sure, "@: the read is answered", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			o := *s.read
			s.read = nil
			w.step(s, o)
		})
	case s.observes:
		a.add(sure, "@ reads its state", i, 0, (*World).observe)
	case reads && (s.silent || s.user >= 0 && (w.users[s.user].forced || w.users[s.user].broken)):
		a.add(sure, "@ reads its state after a renewal", i, 0, (*World).observe)
	case reads && !w.orderly:
		a.add(possible, "@ reads its state after a renewal", i, 0, (*World).observe)
	}
	if reads && s.read == nil && !w.leaseOf(s.lease).wiped {
		a.add(oldRead, "@ reads its state, and the answer takes its time", i, 0, func(w *World, i, _ int) {
			s := w.slots[i]
			o := w.stateOf(s)
			s.read, s.observes = &o, false
		})
	}
	if waits {
		a.add(refusal, "@ must not read its state any more", i, 0, func(w *World, i, _ int) {
			w.slots[i].refused = true
			w.step(w.slots[i], message.Unreadable{})
		})
	}
	if s.timer {
		a.add(sure, "@: its time is over", i, 0, func(w *World, i, _ int) {
			w.slots[i].timer = false
			w.step(w.slots[i], message.Elapsed{})
		})
	}
	if s.m.State == standing.Unconfirmed {
		a.add(possible, "@: the lease is renewed", i, 0, func(w *World, i, _ int) { w.step(w.slots[i], message.Renewed{}) })
	}
}

func (w *World) stateOf(s *slot) message.Observation {
	ahead := s.m.Ahead()
	resp, err := w.txn(s, message.Request{Name: message.ReadState}, wire.StateRead(wire.StateOps(s.place.At(s.m.Seat).LockKey(), s.place.Key, ahead)))
	if err != nil {
		w.errf("%v", err)
		return message.Observation{}
	}
	o := translate.Observation(resp, 0, s.m.Seat, ahead)
	if o.Keys != w.scene(s).keys(s.m.Seat) || ahead != "" && o.Ahead != kvOf(w.get(ahead)) {
		w.errf("%s does not see what there is", s.place.Key)
	}
	return o
}

func (w *World) observe(i, _ int) {
	s := w.slots[i]
	s.observes = false
	if l := w.leaseOf(s.lease); l.wiped {
		w.leaseLost(l)
		return
	}
	if s.m.Created() > 0 && s.m.State < standing.Leaving {
		o := w.stateOf(s)
		w.step(s, o)
		token := s.m.Token
		is := o.Keys.Lock.Mod == token && o.Keys.Place.Mod == token
		if s.place.Mode == mode.Shared {
			is = o.Keys.Place.Exists() && o.Keys.Place.Mod == s.m.Created()
		}
		if s.m.State == standing.Held && !is {
			w.errf("%s has read that the lock is lost, and holds it", s.place.Key)
		}
	}
}

// watchMoves are what the watches of a slot have to tell.
func (w *World) watchMoves(i int, s *slot, a *moves) {
	if s.silent {
		a.add(possible, "@: its watches are made anew", i, 0, (*World).rewatch)
		return
	}
	first := int64(math.MaxInt64)
	for of := range s.watches {
		if s.watches[of].on {
			first = min(first, w.newsOf(s, of))
		}
	}
	if s.watches != [message.Watchers]watch{} {
		a.add(silence, "@: its watches fall silent", i, 0, func(w *World, i, _ int) { w.slots[i].silent = true })
	}
	for of := range s.watches {
		x := &s.watches[of]
		at := w.newsOf(s, of)
		late := w.orderly && at > first
		switch {
		case !x.on || at == nothingNew:
		case !x.created:
			if !late {
				a.add(sure, "@: a watch is created", i, of, func(w *World, i, of int) {
					w.slots[i].create(of, w)
					w.created(i, of)
				})
			}
			a.add(slowAnswer, "@: a watch is created, which is told later", i, of, func(w *World, i, of int) { w.slots[i].create(of, w) })
			first = min(first, at-1) // the others are created after it
		case late:
		case !x.told:
			a.add(sure, "@: it is told that a watch was created", i, of, (*World).created)
		default:
			a.add(sure, "@ hears of an event", i, of, (*World).event)
		}
	}
}

// nothingNew is the revision of a watch that has nothing to tell.
const nothingNew = math.MaxInt64

// newsOf returns the revision of what a watch tells next.
func (w *World) newsOf(s *slot, of int) int64 {
	switch x := &s.watches[of]; {
	case !x.on:
	case !x.created:
		return nothingNew - 1
	case !x.told:
		return x.since
	default:
		if at := w.etcd.NextOf(x.next, x.key, x.end); at > 0 {
			return at
		}
	}
	return nothingNew
}

// create has etcd create a watch.
func (s *slot) create(of int, w *World) {
	x := &s.watches[of]
	x.created, x.since = true, w.etcd.Revision()
	switch {
	case x.next == 0:
		x.next = x.since + 1
	case x.next < w.etcd.Compacted(): // etcd ends it, and it tells nothing
		x.key, x.end = "", ""
	}
}

// created tells a machine of a watch that etcd has created.
func (w *World) created(i, of int) {
	x := &w.slots[i].watches[of]
	since := x.since
	x.told, x.since = true, 0
	w.step(w.slots[i], message.Watching{Of: message.Watched(of), Since: since})
}

func (w *World) event(i, of int) {
	s := w.slots[i]
	x := &s.watches[of]
	events, _ := w.etcd.Events(x.next, []byte(x.key), []byte(x.end))
	x.next = events[0].Kv.ModRevision + 1
	w.step(s, translate.Event(s.place, message.Watched(of), events[0]))
}

// rewatch creates all watches of a slot anew. What one that was from now on has missed is lost.
func (w *World) rewatch(i, _ int) {
	s := w.slots[i]
	s.silent = false
	for of := range s.watches {
		x := &s.watches[of]
		if !x.on {
			continue
		}
		again := x.created
		x.next = x.from
		s.create(of, w)
		x.told, x.since = true, 0
		w.step(s, message.Watching{Of: message.Watched(of), Since: w.etcd.Revision(), Again: again})
	}
}
