package model

// Two contenders on one lease are a session's. The lease cannot be revoked for one of them, so what
// one may have left is taken back.

// leaveStray gives up the name of a place of which nobody knows whether it is there or will be.
func (w *world) leaveStray(x int) {
	if !w.lacks(unknownAcquireIsFenced) {
		w.set(x, doubtful)
	}
}

// strayLeft: only one place at a time may be given up unknown, which bounds the exploration.
func (w *world) strayLeft() bool {
	for _, q := range w.late {
		if q.renamed && (q.kind == trying || q.kind == joining) {
			return true
		}
	}
	return w.keys[stray].create != 0 || w.keys[lock].by == stray+1
}

// sessionLives: nobody of it has crashed. Its contenders may all have gone.
func (w *world) sessionLives() bool {
	for x := range w.who {
		if w.shared(x) && w.who[x].phase == crashed {
			return false
		}
	}
	return true
}

// takesOut: the session finds the place of which it has given up the name, and takes it out of the
// line. That it is as it was created does not say that it was granted nothing: acquire may have won
// at once.
func (w *world) takesOut() bool {
	own := w.keys[stray]
	if own.create == 0 || !w.sessionLives() || w.lacks(strayIsTakenOut) {
		return false
	}
	w.now++
	if has := own.mod == w.keys[lock].mod; has && (!w.lacks(strayComparesKey) || own.mod != own.create) {
		w.say(stray, "the session finds that @ has the lock, and releases it")
		w.remove(lock)
	} else {
		w.say(stray, "the session finds @, and deletes it")
	}
	w.remove(stray)
	w.dropTail(stray)
	return true
}

// sweeps: the session finds that the operator has deleted the place that it would have taken out.
func (w *world) sweeps() bool {
	left := w.keys[lock].by == stray+1 || w.tail == stray
	itself := w.lacks(strayComparesKey) // it has deleted the place, and looks no further
	if w.keys[stray].create != 0 || !left || !w.sessionLives() || w.lacks(orphanIsDeleted) || itself {
		return false
	}
	w.now++
	if w.keys[lock].by == stray+1 {
		w.remove(lock)
	}
	w.dropTail(stray)
	return w.say(stray, "the session deletes what is left of @")
}

// sessionExpires: the process is dead, and the lease that the session had last runs out.
func (w *world) sessionExpires() bool {
	left := w.keys[stray].create != 0 || w.keys[lock].by == stray+1 || w.tail == stray
	for x := range w.who {
		if w.shared(x) && w.leases(x) {
			return false // with the others on it
		}
	}
	if !left || w.sessionLives() {
		return false
	}
	w.now++
	w.removeUnder(stray)
	for x := range w.who {
		w.dropLate(x, func(request) bool { return w.shared(x) })
	}
	return w.say(stray, "the lease of @ runs out")
}

// orphaned: K is under the lease, nobody under it knows that it has it, and no place was written
// with it. The contender whose place that was has not heard of the grant, and never will.
func (w *world) orphaned(x int) bool {
	key := w.keys[lock]
	if key.create == 0 || key.by == 0 || w.leaseOf(key.by-1) != w.lease[x] {
		return false
	}
	for k := range uint8(foreign) {
		if w.keys[k].mod == key.mod {
			return false
		}
	}
	for y := range w.who {
		if w.who[y].phase.holds() && w.who[y].token == key.mod {
			return false
		}
	}
	return true
}

// leaseOf is whose lease a place is bound to.
func (s *scenario) leaseOf(place uint8) uint8 {
	if place == stray {
		return s.lease[0]
	}
	return s.lease[place]
}

// cleared: the contender's place is gone. What was left of it under the lease is deleted.
func (w *world) cleared(x int) {
	w.say(x, "@ deletes what is left of its place")
	if !w.is(x, gone) {
		w.now++
		if w.orphaned(x) && !w.lacks(orphanIsDeleted) {
			w.remove(lock)
		}
		w.dropTail(uint8(x))
	}
	w.end(x)
}
