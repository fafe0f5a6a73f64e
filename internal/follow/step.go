package follow

import (
	"bytes"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/line"
)

// A written key is one that a revision has written, or, without a value, deleted.
type written struct {
	key string
	kv  *mvccpb.KeyValue
}

// A step is what one revision does to a lock.
type step struct {
	*lock
	revision int64
	isKey    bool // K was written
	touched  []string
	come     []*mvccpb.KeyValue // places
	gone     []*mvccpb.KeyValue // places, as they were
	had      map[string]int64   // CreateRevision of the places of those who were holders before
	has      []Change           // who has got the lock
	changes  []Change
}

// step takes note of what a revision has done to the lock, and returns what that means: who has
// lost it or given it back, who has left the line, who has it now, and who has joined.
func (l *lock) step(revision int64, keys []written) []Change {
	s := &step{lock: l, revision: revision, had: make(map[string]int64)}
	for _, w := range keys {
		s.note(w)
	}
	l.revision = revision
	before, after := s.holdersNow()
	for _, seat := range slices.Sorted(maps.Keys(before)) {
		s.end(before[seat], after[seat])
	}
	for _, seat := range slices.Sorted(maps.Keys(after)) {
		s.begin(before[seat], after[seat])
	}
	s.leave()
	s.changes = append(s.changes, s.has...)
	s.join()
	for i := range s.changes {
		s.changes[i].Revision, s.changes[i].Lock = revision, l.name
	}
	return s.changes
}

// note takes note of a key.
func (s *step) note(w written) {
	if w.key == s.name {
		s.key, s.isKey = w.kv, true
		return
	}
	was := s.place(w.key)
	s.set(w.key, w.kv)
	is := s.place(w.key)
	if was != nil && (is == nil || is.CreateRevision != was.CreateRevision) {
		s.gone = append(s.gone, was)
	}
	if is != nil && (was == nil || is.CreateRevision != was.CreateRevision) {
		s.come = append(s.come, is)
	}
	s.touched = append(s.touched, w.key)
}

// holdersNow finds out who holds the lock now. It returns them by their seats, and those who held
// it before. If only some can have changed it returns these alone.
func (s *step) holdersNow() (before, after map[string]*Holder) {
	p := s.front()
	seats := map[string]bool{s.name: true}
	for _, key := range s.touched {
		seats[key] = true
		if seat, ok := s.seats[key]; ok {
			seats[seat] = true
		}
	}
	for seat := range seats {
		s.addSeat(p, seat)
	}
	now, regime := s.judge(p)
	isWhole := regime != s.regime
	if isWhole {
		now, s.regime = s.judge(s.whole())
		for seat := range s.holders {
			seats[seat] = true
		}
	}
	before, after = make(map[string]*Holder), make(map[string]*Holder)
	for seat := range seats {
		if h := s.holders[seat]; h != nil {
			before[seat] = h
			delete(s.holders, seat)
		}
	}
	about := line.Line{Lock: now.Lock, Slots: now.Slots, Shared: now.Shared}
	for _, h := range now.Holders {
		if seat := s.lock.seat(now, h); isWhole || seats[seat] {
			after[seat] = &Holder{Holder: h, Line: about}
		}
	}
	s.remember(before, after)
	return before, after
}

func (s *step) remember(before, after map[string]*Holder) {
	for _, h := range before {
		if h.Place != nil {
			s.had[string(h.Place.Key)] = h.Place.CreateRevision
			delete(s.seats, string(h.Place.Key))
		}
	}
	for seat, h := range after {
		s.holders[seat] = h
		if was := before[seat]; isSame(was, h) && h.Place == nil { // somebody has touched its place
			h.Place, h.Record = was.Place, was.Record
		}
		if h.Place != nil && s.isThere(h.Place) {
			s.seats[string(h.Place.Key)] = seat
		}
	}
}

// isSame reports whether it is the same holding.
func isSame(before, after *Holder) bool {
	return before != nil && after != nil && before.Nonce == after.Nonce
}

// end finds out what has become of somebody who held the lock, if somebody else has its seat now,
// or nobody. While its place is there it has not given the lock back.
func (s *step) end(h, after *Holder) {
	switch {
	case isSame(h, after):
		s.ask(h, after)
	case h.Place != nil && s.isThere(h.Place):
		s.stopped[string(h.Place.Key)] = h
		if string(h.Key.Key) == s.name && s.isKey || slices.Contains(s.touched, string(h.Key.Key)) {
			s.change(Broken, h)
		}
	case h.told && !s.isPass(h, after):
		s.change(Released, h)
	}
}

// ask finds out whether a holder was asked to stop.
func (s *step) ask(before, after *Holder) {
	after.told = before.told
	isWritten := !bytes.Equal(before.Key.Key, after.Key.Key) || before.Key.ModRevision != after.Key.ModRevision
	isAnother := after.Broken != nil && (before.Broken == nil || *before.Broken != *after.Broken)
	if isAnother || isWritten && after.Broken == nil {
		s.change(Broken, after)
	}
}

// begin finds out whether somebody has got the lock.
func (s *step) begin(before, h *Holder) {
	switch {
	case isSame(before, h):
		return
	case h.Place != nil && s.stopped[string(h.Place.Key)] != nil: // it had the lock already
		h.told = true
		delete(s.stopped, string(h.Place.Key))
		return
	case h.Place == nil && (h.Key.Lease != 0 || h.Key.ModRevision != s.revision || len(s.stopped) > 0):
		return // who has put K by hand is told then, and not when somebody comes to wait for it
	}
	h.told = true
	c := Change{Kind: Acquired, Holder: h}
	if s.isPass(before, h) {
		c.Kind, c.From = Passed, before
	}
	s.has = append(s.has, c)
}

func (s *step) change(kind Kind, h *Holder) {
	s.changes = append(s.changes, Change{Kind: kind, Holder: h})
}

// isPass reports whether the one who had K has given it to the next in line.
func (s *step) isPass(before, after *Holder) bool {
	return before != nil && after != nil && before.Place != nil && after.Place != nil && !before.Mutex && !after.Mutex && before.told &&
		string(after.Key.Key) == s.name && after.Key.ModRevision == s.revision && !s.isThere(before.Place)
}

// isThere reports whether a place is still there.
func (s *step) isThere(place *mvccpb.KeyValue) bool {
	now := s.place(string(place.Key))
	return now != nil && now.CreateRevision == place.CreateRevision
}

// leave finds out what the places meant that are gone.
func (s *step) leave() {
	for _, place := range s.gone {
		key := string(place.Key)
		if h := s.stopped[key]; h != nil {
			delete(s.stopped, key)
			s.change(Released, h)
		} else if s.had[key] != place.CreateRevision {
			s.changes = append(s.changes, Change{Kind: Left, Place: place})
		}
	}
}

// join finds out who has joined the line, and has not got the lock at once.
func (s *step) join() {
	var waiting []*mvccpb.KeyValue
	for _, place := range s.come {
		if _, has := s.seats[string(place.Key)]; !has {
			waiting = append(waiting, place)
		}
	}
	for i, place := range waiting {
		turn := len(s.places) - len(s.seats) - len(s.stopped) - len(waiting) + i + 1
		s.changes = append(s.changes, Change{Kind: Joined, Place: place, Turn: turn})
	}
}
