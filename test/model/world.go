package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

const lock = "k"

// besides is how the keys of a lock begin that are not below K/: the tail, and notes.
const besides = lock + "~"

// byHand is what an operator writes.
const byHand = "by hand"

// A Mutation returns what is sent in place of a transaction.
type Mutation func(message.Name, *pb.TxnRequest) *pb.TxnRequest

// A Cast is who takes part: how many of each kind, and how often each of them wants the lock.
type Cast struct {
	Private  int // with leases of their own
	Session  int // in one session
	Sessions int // how many sessions these are spread over, 1 if not given
	Unlinked int // that may not write the tail
	Try      int // that do not wait
	Sharing  int // that share the lock
	TryShare int // that do not wait to do so
	Together int // that share the lock, in the sessions
	Slots    int // that want one of some slots
	Of       int // how many slots there are, 2 if not given
	TrySlots int // that do not wait for one
	Sits     int // that want one, in the sessions
	InSets   int // that want the lock as one of a set, in the sessions
	SetShare int // that want to share it so
	Others   int // that want one of one more
	Mutexes  int // of etcd's concurrency package
	Turns    int

	OneID   bool // of all of a session
	Batches bool // what is written goes to etcd with a write of another lock
	Lone    bool // the private ones begin as if nobody had been there the last time
	Forgets bool // etcd compacts its history as soon as no watch needs it

	// Orderly has the watches of a machine created, and tell, in the order of revisions, and no
	// reads of the state but those that are needed. It makes explorations smaller.
	Orderly bool
}

// A World is a small etcd, and everybody who wants the lock.
type World struct {
	etcd    *smalletcd.Store
	users   []user
	slots   []*slot
	leases  []*lease
	late    []late
	mutexes []mutex

	granted int64    // how many leases there were
	slotted int      // how many slots
	token   int64    // the newest fencing token
	alone   int64    // the newest one of who does not share the lock
	seats   [4]int64 // the newest one of each slot, by seat
	wiped   bool     // etcd has lost everything once
	touched bool     // an operator has written or deleted a place
	jumps   bool     // it has written one as a grant does: whoever stands behind that overtakes
	breaker breaker
	pauser  pauser
	notes   []note
	forgets bool
	batches bool
	orderly bool

	unconfirmed *slot // was granted the lock after validity had ended
	broken      error
	mutate      Mutation // nil: the transactions are sent as they are
	moves       []Move   // that the last call of Moves has returned
	log         func(format string, args ...any)
}

// A user wants the lock a number of times.
type user struct {
	name    string
	as      string // the id
	turns   int
	session int // which one, 0 for none
	try     bool
	set     bool
	linked  bool
	mode    mode.Mode
	lone    bool
	lease   int64 // 0 for none
	works   bool
	forced  bool // an operator has taken the lock away, and it was not told yet
	broken  bool // an operator has asked it to stop, and it has not
	told    bool // of a loss
}

// A lease is one lease with its slots. One without a session serves one user.
type lease struct {
	id      int64
	session int
	places  int64
	grace   bool // was told
	over    bool // validity has ended
	gone    bool // etcd has it no more
	told    bool // that it is useless
	renames bool // the last place's name must not be used again
	revoke  bool // it is to be revoked before anything else
	remains bool // a tail may be left that its user was not allowed to delete
	wiped   bool // it went with all that etcd had
}

// A slot is one machine, and what its driver has to do.
type slot struct {
	n        int // no other slot has it
	m        protocol.Machine
	place    wire.Place
	lease    int64
	user     int // -1 if it is left to the session
	asked    bool
	set      bool // it is of a set
	joint    bool // the request is one with those of the others
	others   bool // which is refused for their sake
	request  message.Request
	again    bool // a try has an unknown outcome
	answer   *message.Answer
	joins    int // requests to join that are late
	watches  [message.Watchers]watch
	silent   bool // the watches tell nothing
	observes bool
	read     *message.Observation // that is answered, and not told yet
	timer    bool
	lasting  bool
	followed bool // somebody has joined behind the place
	ended    bool // the user was told
	quits    bool // the user has given up
	released bool // the user had the lock, and has released it
	doubt    bool // an outcome was unknown
	refused  bool // etcd has refused something
}

// A watch is one watch of a slot.
type watch struct {
	on, created, told bool
	key, end          string
	from              int64 // 0 is from now
	since             int64 // it was created in
	next              int64 // the next revision to tell of
}

// A late request was sent, and is applied at some time or never.
type late struct {
	place   wire.Place
	request message.Request
	again   bool
	sender  int // the n of the slot
	lease   int64
}

// New returns a world in which nothing has happened.
func New(c Cast) *World {
	w := &World{etcd: smalletcd.New(1).WithoutVersions(), forgets: c.Forgets, batches: c.Batches, orderly: c.Orderly}
	add := func(name string, n int, change func(*user, int)) {
		for i := range n {
			u := user{name: name + string(rune('a'+i)), turns: max(c.Turns, 1), linked: true}
			u.as = u.name
			change(&u, i)
			w.users = append(w.users, u)
		}
	}
	of := mode.Mode(cmp.Or(c.Of, 2))
	add("own-", c.Private, func(u *user, _ int) { u.lone = c.Lone })
	add("unlinked-", c.Unlinked, func(u *user, _ int) { u.linked = false })
	add("try-", c.Try, func(u *user, _ int) { u.try = true })
	add("shares-", c.Sharing, func(u *user, _ int) { u.mode = mode.Shared })
	add("tries-to-share-", c.TryShare, func(u *user, _ int) { u.mode, u.try = mode.Shared, true })
	add("together-", c.Together, func(u *user, i int) { u.mode, u.session = mode.Shared, 1+i%max(c.Sessions, 1) })
	add("slots-", c.Slots, func(u *user, _ int) { u.mode = of })
	add("tries-slots-", c.TrySlots, func(u *user, _ int) { u.mode, u.try = of, true })
	add("sits-", c.Sits, func(u *user, i int) { u.mode, u.session = of, 1+i%max(c.Sessions, 1) })
	add("in-sets-", c.InSets, func(u *user, i int) { u.set, u.session = true, 1+i%max(c.Sessions, 1) })
	add("shares-in-sets-", c.SetShare, func(u *user, i int) {
		u.mode, u.set, u.session = mode.Shared, true, 1+i%max(c.Sessions, 1)
	})
	add("others-", c.Others, func(u *user, _ int) { u.mode = of + 1 })
	add("session-", c.Session, func(u *user, i int) {
		if u.session = 1 + i%max(c.Sessions, 1); c.OneID {
			u.as = "session"
		}
	})
	for range c.Mutexes {
		w.mutexes = append(w.mutexes, mutex{turns: max(c.Turns, 1)})
	}
	return w
}

// Clone returns a copy of the world.
func (w *World) Clone() *World {
	c := *w
	c.etcd, c.moves = w.etcd.Clone(), nil
	c.users, c.mutexes, c.late = slices.Clone(w.users), slices.Clone(w.mutexes), slices.Clone(w.late)
	c.notes = slices.Clone(w.notes)
	slots, leases := make([]slot, len(w.slots)), make([]lease, len(w.leases))
	c.slots, c.leases = make([]*slot, len(w.slots)), make([]*lease, len(w.leases))
	for i, s := range w.slots {
		slots[i], c.slots[i] = *s, &slots[i]
	}
	for i, l := range w.leases {
		leases[i], c.leases[i] = *l, &leases[i]
	}
	return &c
}

// errf notes the first thing that is broken.
func (w *World) errf(format string, args ...any) {
	if w.broken == nil {
		w.broken = fmt.Errorf(format, args...)
	}
}

func (w *World) say(s *slot, in message.Input, before standing.State) {
	if w.log != nil {
		w.log("    %s: %s: %v -> %v", s.place.Key, short(in), before, s.m.State)
	}
}

// slotOf returns the slot of a user, nil if it has no slot.
func (w *World) slotOf(user int) *slot {
	for _, s := range w.slots {
		if s.user == user {
			return s
		}
	}
	return nil
}

func (w *World) leaseOf(id int64) *lease {
	for _, l := range w.leases {
		if l.id == id {
			return l
		}
	}
	return nil
}

// grant makes a lease.
func (w *World) grant(session int) *lease {
	w.granted++
	l := &lease{id: w.granted, session: session}
	w.etcd.Grant(l.id)
	w.leases = append(w.leases, l)
	return l
}

// sessionLease returns the present lease of a session.
func (w *World) sessionLease(session int) *lease {
	for _, l := range w.leases {
		if l.session == session && !l.told {
			return l
		}
	}
	return w.grant(session)
}

// begin makes a user's next machine.
func (w *World) begin(user int) {
	u := &w.users[user]
	var l *lease
	switch {
	case u.session > 0:
		l = w.sessionLease(u.session)
	case u.lease == 0:
		l = w.grant(0)
	default:
		l = w.leaseOf(u.lease)
	}
	u.lease = l.id
	if l.places == 0 || l.renames || l.session > 0 {
		l.places, l.renames = l.places+1, false
	}
	p := wire.Place{Lock: lock, Lease: clientv3.LeaseID(l.id), ID: u.as, Record: `{"v":1,"id":"` + u.as + `"}`, Linked: u.linked && u.mode != mode.Shared, Mode: u.mode}
	switch {
	case u.mode.Slots() > 0:
		p.Key = wire.SlotPlace(lock, u.mode.Slots(), p.Lease, l.places)
	case u.mode == mode.Shared:
		p.Key = wire.SharedPlace(lock, p.Lease, l.places)
	case u.linked:
		p.Key = wire.LinkedPlace(lock, p.Lease, l.places)
	default:
		p.Key = wire.UnlinkedPlace(lock, p.Lease, l.places)
	}
	c := translate.Config(p)
	c.Try, c.Lone, c.Shared = u.try || u.set, u.lone, l.session > 0
	w.slotted++
	s := &slot{n: w.slotted, m: protocol.New(c), place: p, lease: l.id, user: user, set: u.set, joint: u.set}
	w.slots = append(w.slots, s)
	w.step(s, message.Acquire{})
}

// isDone reports whether all have had their turns, and nothing goes on.
func (w *World) isDone() bool {
	for i := range w.users {
		if w.users[i].turns > 0 {
			return false
		}
	}
	for _, m := range w.mutexes {
		if m.turns > 0 {
			return false
		}
	}
	return len(w.slots)+len(w.late)+len(w.notes) == 0 && w.pauser.lease == 0
}

// left returns the keys that there are.
func (w *World) left() (keys []string) {
	if w.get(lock).CreateRevision > 0 {
		keys = append(keys, lock)
	}
	for _, prefix := range []string{besides, wire.Prefix(lock)} {
		for kv := range w.etcd.Below(prefix) {
			keys = append(keys, string(kv.Key))
		}
	}
	return keys
}

// isFinished reports whether all are done, and nothing is left.
func (w *World) isFinished() bool { return w.isDone() && len(w.left()) == 0 }

// tidy forgets leases that nobody has any more, and, if that is wanted, old history.
func (w *World) tidy() {
	w.leases = slices.DeleteFunc(w.leases, func(l *lease) bool { return l.gone && !w.isUsed(l) })
	for _, s := range w.slots {
		for of := range s.watches {
			if w.newsOf(s, of) == nothingNew && s.watches[of].on {
				s.watches[of].next = w.etcd.Revision() + 1
			}
		}
	}
	if !w.forgets {
		return
	}
	oldest := w.etcd.Revision()
	for _, s := range w.slots {
		for _, x := range s.watches {
			if x.on && x.next > 0 {
				oldest = min(oldest, x.next)
			}
		}
	}
	if oldest > w.etcd.Compacted() {
		if err := w.etcd.Compact(oldest); err != nil {
			w.errf("compacting at %d: %v", oldest, err)
		}
	}
}

func (w *World) isUsed(l *lease) bool {
	for _, s := range w.slots {
		if s.lease == l.id {
			return true
		}
	}
	for i := range w.users {
		if w.users[i].lease == l.id && w.users[i].turns > 0 {
			return true
		}
	}
	return false
}

// short describes an input.
func short(in message.Input) string {
	switch in := in.(type) {
	case message.Answer:
		return fmt.Sprintf("answer %d at %d, K %d, place %d/%d, ahead %q, ours %v, repeated %v", in.Outcome, in.Rev, in.Keys.Lock.Mod, in.Keys.Place.Create, in.Keys.Place.Mod, in.Ahead.Key, in.Ours, in.Repeated)
	case message.Event:
		return fmt.Sprintf("event of %d, deleted %v, %d/%d", in.Of, in.Deleted, in.KV.Create, in.KV.Mod)
	case message.Observation:
		return fmt.Sprintf("observation at %d, K %d, place %d/%d, ahead %q %d/%d", in.Rev, in.Keys.Lock.Mod, in.Keys.Place.Create, in.Keys.Place.Mod, in.Of, in.Ahead.Create, in.Ahead.Mod)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T%+v", in, in), "protocol.")
}
