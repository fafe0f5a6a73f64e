package model

// An answer is what etcd says to a transaction: whether the comparisons held and, if they did not,
// what there was.
type answer struct {
	done     bool
	noLease  bool // refused because of a put under a lease that is no more
	key, own item
	tail     uint8
}

// newest returns the newest key below K/ that is older than a revision.
func (s *state) newest(than rev) uint8 {
	return s.newestOf(than, func(uint8) bool { return true })
}

func (s *state) newestOf(than rev, kind func(uint8) bool) uint8 {
	newest := uint8(nothing)
	for k := range uint8(lock) {
		if c := s.keys[k].create; c != 0 && c < than && (newest == nothing || c > s.keys[newest].create) && kind(k) {
			newest = k
		}
	}
	return newest
}

// put writes a key in the current revision.
func (w *world) put(k int, by uint8) {
	if w.keys[k].create == 0 {
		w.keys[k].create = w.now
	}
	w.keys[k].mod, w.keys[k].by = w.now, by
}

func (w *world) remove(k int) {
	if w.keys[k].create == 0 {
		return
	}
	w.keys[k] = item{}
	w.spend(uint8(k))
	w.tell(k)
	if k < ours {
		w.clear(k, unbound)
	}
	if w.mutex.phase == blocked && w.mutex.before == uint8(k) {
		w.mutex.event = 1
	}
}

// tell lets watches know that a key is gone. What happened before a watch was confirmed it does not
// tell.
func (w *world) tell(k int) {
	for x := range w.who {
		if c := &w.who[x]; w.is(x, watching) && !w.is(x, silent) && c.before == uint8(k) {
			w.set(x, event)
		}
	}
}

// acquire is the first transaction for a place of a contender's; of the half that TryLock begins
// with, nothing is put if it is refused.
func (w *world) acquire(x, place int, half bool) (a answer) {
	free := w.keys[lock].create == 0 && (half || w.tail == nothing) || w.lacks(acquireComparesKey)
	alone := w.newest(w.now+1) == nothing || w.lacks(acquireComparesLine)
	a = answer{done: free && alone, key: w.keys[lock], tail: w.tail}
	puts := a.done || !half || w.lacks(refusedHalfWritesNothing)
	if a.noLease = puts && w.is(x, gone); !puts || a.noLease {
		a.done = false
		return a
	}
	w.now++
	if a.done {
		w.putLock(place)
	}
	w.put(place, 0)
	if w.linked(uint8(place)) && !a.done {
		w.swapTail(uint8(place))
	}
	if w.lacks(getsComeFirst) {
		a.tail = w.tail
	}
	return a
}

// putLock writes K for who has a place. There must not be one, whoever made it.
func (w *world) putLock(place int) {
	if w.keys[lock].create != 0 {
		w.broken |= oneHolder
	}
	w.put(lock, uint8(place)+1)
}

// claim is made for the place created at r: with the comparison of the whole line; directly behind
// a holder that is gone only of the strangers; after a listing with neither.
func (w *world) claim(x int, own item, r rev, kind phase) answer {
	mine := own.mod == r || w.lacks(claimComparesPlace)
	free := w.keys[lock].create == 0 || w.lacks(claimComparesKey)
	first := true
	switch kind {
	case claimingNext:
		first = !w.strangers() || w.lacks(nextComparesStrangers)
	case claiming:
		first = w.newest(r) == nothing || w.lacks(claimComparesLine)
	}
	a := answer{done: mine && free && first, key: w.keys[lock], own: own}
	if !a.done {
		return a
	}
	if a.noLease = w.is(x, gone); a.noLease {
		a.done = false
		return a
	}
	w.now++
	w.putLock(x)
	w.overtakes(r)
	if !w.lacks(oneTransaction) {
		w.grantTo(uint8(x))
	}
	return a
}

// grantTo writes a place, in the revision that gives K to it. The watch on it tells, sooner or
// later.
func (w *world) grantTo(place uint8) {
	w.put(int(place), 0)
	w.spend(place)
	for x := range w.who { // only a grant writes a place
		if w.who[x].before == place && w.is(x, watching) && !w.is(x, silent) {
			w.set(x, behindHolder)
		}
	}
	if x := int(place); x < ours && w.who[x].phase.waits() && !w.is(x, silent) {
		w.who[x].token = w.now
		w.set(x, told)
	}
}

// leave deletes the place, and shows what was there.
func (w *world) leave(x int) answer {
	a := answer{done: true, key: w.keys[lock], own: w.keys[x]}
	if a.own.create != 0 || w.tail == uint8(x) {
		w.now++
		w.remove(x)
		w.dropTail(uint8(x))
	}
	return a
}

// withdraw deletes the place if it is still as it was created, which means that it was not granted
// the lock.
func (w *world) withdraw(x int, r rev, before uint8) answer {
	a := answer{done: w.keys[x].mod == r || w.lacks(leaveLooks), key: w.keys[lock], own: w.keys[x]}
	if !a.done {
		return a
	}
	if a.noLease = w.tail == uint8(x) && w.lacks(putBackComparesPlace) && before < ours && w.is(int(before), gone); a.noLease {
		a.done = false
		return a
	}
	w.now++
	w.remove(x)
	w.putBackTail(uint8(x), before)
	return a
}

// endLease ends the lease of a contender, by revocation or because it ran out: its keys go in one
// revision, and no write under it will be accepted any more.
func (w *world) endLease(x int) {
	w.now++
	for y := range w.who {
		if w.lease[y] == w.lease[x] && !w.is(y, gone) {
			w.endLeaseOf(y)
		}
	}
	if w.shared(x) {
		w.removeUnder(stray)
	}
}

func (w *world) endLeaseOf(y int) {
	if p := w.who[y].phase; p != idle && p != quit {
		w.set(y, gone)
	}
	w.removeUnder(y)
	w.dropLate(y, func(request) bool { return true })
	if w.who[y].phase == expiring {
		w.who[y] = somebody(idle)
	}
}

// removeUnder removes what is bound to the lease of a place: it, K if the place has it, and the
// tail if that names it.
func (w *world) removeUnder(place int) {
	if !w.lacks(placeHasLease) && (place == stray || !w.is(place, unbound)) {
		w.remove(place)
	}
	if w.keys[lock].by == uint8(place)+1 && !w.lacks(keyHasLease) {
		w.remove(lock)
	}
	if w.tail == uint8(place) && !w.lacks(tailHasLease) {
		w.tail = nothing
	}
}

// dropLate forgets late requests of a contender which would do nothing.
func (w *world) dropLate(x int, which func(request) bool) {
	for i, q := range w.late {
		if q.isOf(x) && which(q) {
			w.late[i] = request{}
		}
	}
}
