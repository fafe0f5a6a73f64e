package model

import (
	"slices"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// step gives a machine an input, and does what it asks for.
func (w *World) step(s *slot, in message.Input) {
	before := s.m.State
	effects := s.m.Step(in)
	w.say(s, in, before)
	for _, e := range effects {
		w.do(s, e)
	}
	if w.unconfirmed == s {
		w.unconfirmed = nil
		w.step(s, message.ValidityOver{})
	}
	s.forget()
	w.mustStand(s)
}

// forget forgets what would tell the machine nothing any more.
func (s *slot) forget() {
	if s.m.State >= standing.Leaving {
		s.observes, s.read = false, nil
	}
	switch s.m.State {
	case standing.Waiting, standing.Looking, standing.Leaving:
	default:
		s.timer = false
	}
}

func (w *World) do(s *slot, e message.Effect) {
	switch e.Do {
	case message.Send:
		if s.asked {
			w.errf("%s: two requests at once", s.place.Key)
		}
		s.asked, s.request, s.again = true, e.Request, false
	case message.Watch:
		key := e.Key
		end := ""
		switch e.Of {
		case message.OnTail:
			key = wire.Tail(lock)
		case message.OnLock:
			key = s.place.At(s.m.Seat).LockKey()
		case message.OnSlots:
			key, end = wire.SlotsRange(lock, s.place.Mode.Slots())
		}
		s.watches[e.Of] = watch{on: true, key: key, end: end, from: e.From, next: e.From}
	case message.Unwatch:
		s.watches[e.Of] = watch{}
	case message.Observe:
		s.observes = true
	case message.Timer:
		s.timer = true
	case message.TellHeld:
		w.held(s, e.Token)
	case message.TellBusy, message.TellEnd:
		w.ended(s, e)
	case message.TellLost:
		w.lost(s, e.Reason)
	case message.TellExpired:
		w.expired(s)
	case message.TellReleased:
		w.released(s, e)
	case message.TellGone:
		w.gone(s)
	}
}

func (w *World) held(s *slot, token int64) {
	if s.user < 0 {
		w.errf("%s holds the lock for nobody", s.place.Key)
		return
	}
	if s.quits {
		w.errf("%s holds the lock, and its user has given up", s.place.Key)
	}
	if w.leaseOf(s.lease).over { // it is renewed first, and that fails
		w.unconfirmed = s
		return
	}
	u := &w.users[s.user]
	u.works, u.told = true, false
	if !u.forced {
		w.mustBeAlone(s.user, u.name)
		w.mustGrow(token, s.m.Seat, u.mode == mode.Shared)
	}
	u.lone = s.m.Created() == token && u.mode != mode.Shared
}

// mustBeAlone checks that nobody else works. Who lost the lock by an operator's force does not
// count: it is told, and stops.
func (w *World) mustBeAlone(user int, name string) {
	sit := 1
	for i := range w.users {
		other := &w.users[i]
		if i == user || !other.works || other.forced {
			continue
		}
		switch {
		case user >= 0 && other.mode == mode.Shared && w.users[user].mode == mode.Shared:
		case user >= 0 && other.mode.Slots() > 0 && other.mode.Slots() == w.users[user].mode.Slots():
			if sit++; sit > other.mode.Slots() {
				w.errf("%d have one of %d slots, %s among them", sit, other.mode.Slots(), name)
			}
		default:
			w.errf("two holders: %s and %s", name, other.name)
		}
	}
	for _, m := range w.mutexes {
		if m.works {
			w.errf("two holders: %s and a Mutex", name)
		}
	}
	if w.pauser.works {
		w.errf("%s has the lock, which is paused", name)
	}
}

// mustGrow checks a fencing token. Those of who shares the lock grow from what is not shared only,
// and those of who has a slot from that of the one before it.
func (w *World) mustGrow(token int64, seat int, shares bool) {
	if seat > 0 {
		if token <= w.alone || token <= w.seats[seat] {
			w.errf("the token %d comes after %d", token, max(w.alone, w.seats[seat]))
		}
		w.seats[seat], w.token = token, max(w.token, token)
		return
	}
	if token <= w.alone || !shares && token <= w.token {
		w.errf("the token %d comes after %d", token, w.token)
	}
	if w.token = max(w.token, token); !shares {
		w.alone = token
	}
}

// ended tells a user that the place will not get the lock.
func (w *World) ended(s *slot, e message.Effect) {
	if s.user < 0 {
		return
	}
	u := &w.users[s.user]
	s.ended = true
	if e.Do == message.TellBusy || e.End == message.Cancelled || e.End == message.Failed || e.End == message.OtherKind {
		u.turns--
	}
	w.mustHaveCause(s, e)
	u.forced, u.broken = false, false
	if w.leaseOf(s.lease).session > 0 {
		s.user, u.lease = -1, 0
	}
}

// mustHaveCause checks that nobody gives up a place without a reason.
func (w *World) mustHaveCause(s *slot, e message.Effect) {
	u, l := &w.users[s.user], w.leaseOf(s.lease)
	is := false
	switch e.End {
	case message.Deleted, message.Overwritten:
		is = w.mayExpire(s) || u.broken
	case message.Uncertain:
		is = s.doubt || u.forced || u.broken
	case message.Failed:
		is = s.refused
	case message.NoLease, message.NoHistory:
		is = l.told
	default:
		is = true
	}
	if !is {
		w.errf("%s: the place is given up (%d) without a cause", s.place.Key, e.End)
	}
}

func (w *World) lost(s *slot, reason message.Reason) {
	if s.user < 0 {
		return
	}
	u, l := &w.users[s.user], w.leaseOf(s.lease)
	if !w.mayExpire(s) && !l.grace && !(u.broken && !reason.Forced()) {
		w.errf("%s is told of a loss (%d) without one", s.place.Key, reason)
	}
	u.told = true
	if reason.Forced() || reason == message.Unrenewed { // the guard kills in time
		u.works = false
	}
}

// expired ends the work at the latest: the guard has killed it.
func (w *World) expired(s *slot) {
	if s.user < 0 {
		return
	}
	if !w.mayExpire(s) {
		w.errf("%s is told of an expiry without one", s.place.Key)
	}
	w.users[s.user].works = false
}

// mayExpire reports whether somebody else may have the lock, if a slot had it: an operator has used
// force, or the lease is of no use any more.
func (w *World) mayExpire(s *slot) bool {
	l := w.leaseOf(s.lease)
	return w.users[s.user].forced || l.over || l.gone
}

func (w *World) released(s *slot, e message.Effect) {
	if s.user < 0 {
		return
	}
	u, l := &w.users[s.user], w.leaseOf(s.lease)
	if e.Reason != message.NotLost && !w.mayExpire(s) && !l.grace && !(u.broken && (!e.Reason.Forced() || s.doubt && u.mode == mode.Shared)) {
		w.errf("%s: the release says that it was lost (%d)", s.place.Key, e.Reason)
	}
	u.works, u.forced, u.broken, u.told = false, false, false, false
	u.turns--
	s.ended, s.released = true, true
	if l.session > 0 || s.m.State == standing.Gone {
		s.user = -1
	}
	if l.session == 0 && (!e.Confirmed || e.Reason != message.NotLost || s.m.Strays()) {
		l.revoke = true
	}
	if l.session > 0 {
		u.lease = 0
	}
}

// gone takes a machine away.
func (w *World) gone(s *slot) {
	w.slots = slices.DeleteFunc(w.slots, func(one *slot) bool { return one == s })
	l := w.leaseOf(s.lease)
	private := l.session == 0
	if s.user >= 0 && private && (s.m.Created() != 0 || s.m.Strays()) && !s.released {
		l.revoke = true
	}
	if s.user >= 0 {
		u := &w.users[s.user]
		if u.works {
			w.errf("%s is gone, and its user works", s.place.Key)
		}
		u.forced = u.forced && !u.told // it was told of that
		u.broken = false
	}
	s.user = -1
	if s.m.Strays() {
		l.renames = true
		l.revoke = l.revoke || private
	}
	for _, watch := range s.watches {
		if watch.on {
			w.errf("%s is gone and still watches %s", s.place.Key, watch.key)
		}
	}
}

// mustStand checks that whoever waits has its place, unless somebody took it away.
func (w *World) mustStand(s *slot) {
	if s.m.State != standing.Waiting || s.user < 0 || w.mayExpire(s) {
		return
	}
	if w.get(s.place.Key).CreateRevision != s.m.Created() {
		w.errf("%s waits and has no place", s.place.Key)
	}
}

// leaseLost tells everybody under a lease that it is useless.
func (w *World) leaseLost(l *lease) {
	if l.told {
		return
	}
	l.told = true
	for _, s := range slices.Clone(w.slots) {
		if s.lease == l.id {
			w.step(s, message.LeaseLost{History: l.wiped})
		}
	}
}
