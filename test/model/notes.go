package model

import (
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A note says since when a slot has the lock.
type note struct {
	of     int // the n of the slot
	place  wire.Place
	nonce  int64
	late   bool // a try to write it is on its way
	killed bool // so is who would erase it: it goes with the lease
}

func (n note) text() string { return record.Since{Token: n.nonce}.Marshal() }

// noteMoves are what drivers do with notes beside what machines ask for.
func (w *World) noteMoves(a *moves) {
	for i, s := range w.slots {
		if s.m.State != standing.Held || s.user < 0 || !w.users[s.user].works || w.noteOf(s) >= 0 {
			continue
		}
		a.add(notes, "@ has it noted since when it holds the lock", i, 0, func(w *World, i, _ int) { w.notes = append(slices.Clone(w.notes), w.putNote(w.newNote(i))) })
		a.add(notes, "@ has it noted since when it holds the lock, which comes late", i, 0, func(w *World, i, _ int) {
			n := w.newNote(i)
			n.late = true
			w.notes = append(slices.Clone(w.notes), n)
		})
	}
	for i, n := range w.notes {
		if n.late {
			a.add(sure, "a late note is lost", -1, i, func(w *World, _, i int) { w.notes[i].late = false })
			a.add(possible, "a late note is written", -1, i, func(w *World, _, i int) { w.notes[i] = w.putNote(w.notes[i]) })
		}
		held := slices.ContainsFunc(w.slots, func(s *slot) bool { return s.n == n.of && s.m.State <= standing.Held })
		if !held && !n.killed {
			a.add(sure, "a note is erased", -1, i, (*World).eraseNote)
		}
		if n.killed && !n.late {
			a.add(sure, "a note is left to its lease", -1, i, func(w *World, _, i int) { w.notes = slices.Delete(slices.Clone(w.notes), i, i+1) })
		}
	}
}

func (w *World) noteOf(s *slot) int {
	return slices.IndexFunc(w.notes, func(n note) bool { return n.of == s.n })
}

func (w *World) newNote(i int) note {
	s := w.slots[i]
	n := note{of: s.n, place: s.place.At(s.m.Seat), nonce: s.m.Token}
	if s.place.Mode == mode.Shared {
		n.nonce = s.m.Created()
	}
	return n
}

// putNote writes a note, which is not late any more. One that a holder has left is erased before.
func (w *World) putNote(n note) note {
	n.late = false
	if there := w.tryNote(n); there != nil && record.SinceOf(there.Value).Token < n.nonce {
		w.erase(n.place, string(there.Value))
		w.tryNote(n)
	}
	return n
}

// tryNote asks etcd once. Nothing is written for who has not the lock, nor over anything. It
// returns what is in the way.
func (w *World) tryNote(n note) *mvccpb.KeyValue {
	key, nonce := wire.Since(n.place), w.get(n.place.LockKey()).ModRevision
	switch {
	case n.place.Mode == mode.Shared:
		nonce = w.get(n.place.Key).CreateRevision
	case n.place.Seat > 0:
		nonce = w.get(n.place.LockKey()).CreateRevision
	}
	before := w.get(key)
	if w.isGone(int64(n.place.Lease)) {
		return nil
	}
	resp := w.sendAs("NoteSince", wire.NoteSince(n.place, n.nonce, n.text()))
	now, may := w.get(key), nonce == n.nonce && before.CreateRevision == 0
	switch {
	case may && (string(now.Value) != n.text() || now.Lease != int64(n.place.Lease)):
		w.errf("a note was written as %v", now)
	case !may && now.ModRevision != before.ModRevision:
		w.errf("a note of %d is written while %d has the lock, over %v", n.nonce, nonce, before)
	case !may && !shows(resp, before):
		w.errf("a note that is refused does not show %s", key)
	}
	return wire.Got(resp, 0)
}

func (w *World) isGone(lease int64) bool {
	l := w.leaseOf(lease)
	return l == nil || l.gone
}

// eraseNote erases a note. What is written after that, before the release is, goes with the lease,
// which is as if it were erased once more.
func (w *World) eraseNote(_, i int) {
	n := w.notes[i]
	w.erase(n.place, n.text())
	if !n.late {
		w.notes = slices.Delete(slices.Clone(w.notes), i, i+1)
	}
}

// erase deletes a note if it is the one that is meant.
func (w *World) erase(p wire.Place, text string) {
	key := wire.Since(p)
	before := w.get(key)
	w.sendAs("EraseSince", wire.EraseSince(p, text))
	now, isIt := w.get(key), string(before.Value) == text
	if isIt == (now.CreateRevision > 0) && before.CreateRevision > 0 {
		w.errf("%q was erased, and there is %q", text, now.Value)
	}
}
