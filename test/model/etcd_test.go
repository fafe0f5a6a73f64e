package model

// An answer is what etcd says to a transaction: whether the comparisons held and, if they did not, what there was.
type answer struct {
	done     bool
	noLease  bool // refused because of a put under a lease that is no more
	key, own item
	newest   uint8 // the newest place that was asked for
}

// newest returns the newest key below K/ that is older than a revision.
func (s *state) newest(than rev) uint8 {
	newest := uint8(nothing)
	for k := range uint8(lock) {
		if c := s.keys[k].create; c != 0 && c < than && (newest == nothing || c > s.keys[newest].create) {
			newest = k
		}
	}
	return newest
}

// put writes a key in the current revision.
func (w *world) put(k int, by uint8) {
	if w.keys[k].create == 0 {
		w.keys[k].create = w.now
		w.tell(k, w.now)
	}
	w.keys[k].mod, w.keys[k].by = w.now, by
}

func (w *world) remove(k int) {
	if w.keys[k].create == 0 {
		return
	}
	w.keys[k] = item{}
	w.tell(k, 0)
	if w.mutex.phase == blocked && w.mutex.before == uint8(k) {
		w.mutex.event = 1
	}
}

// tell lets watches know that a key is not the one that was waited for any more. What happened before a watch was
// confirmed it does not tell.
func (w *world) tell(k int, create rev) {
	for x := range w.who {
		if c := &w.who[x]; w.is(x, watching) && !w.is(x, silent) && c.before == uint8(k) && c.behind != create {
			w.set(x, event)
		}
	}
}

// acquire is the first transaction; of the half that TryLock begins with, nothing is put if it is refused.
func (w *world) acquire(x int, half bool) (a answer) {
	free := w.keys[lock].create == 0 || w.lacks(acquireComparesKey)
	alone := w.newest(w.now+1) == nothing || w.lacks(acquireComparesLine)
	a = answer{done: free && alone, key: w.keys[lock], newest: w.newest(w.now + 1)}
	puts := a.done || !half || w.lacks(refusedHalfWritesNothing)
	if a.noLease = puts && w.is(x, gone); !puts || a.noLease {
		a.done = false
		return a
	}
	w.now++
	if a.done {
		w.putLock(x)
	}
	w.put(x, 0)
	if w.lacks(getsComeFirst) {
		a.newest = w.newest(w.now + 1)
	}
	return a
}

// putLock writes K for a contender. There must not be one, whoever made it.
func (w *world) putLock(x int) {
	if w.keys[lock].create != 0 {
		w.broken |= oneHolder
	}
	w.put(lock, uint8(x)+1)
}

// claim is made for the place created at r; after a listing without the comparison of the whole line.
func (w *world) claim(x int, own item, r rev, afterListing bool) answer {
	older := w.newest(r)
	mine := own.mod == r || w.lacks(claimComparesPlace)
	free := w.keys[lock].create == 0 || w.lacks(claimComparesKey)
	first := older == nothing || afterListing || w.lacks(claimComparesLine)
	a := answer{done: mine && free && first, key: w.keys[lock], own: own, newest: older}
	if w.lacks(waitForOlder) {
		a.newest = w.newestOther(x)
	}
	if !a.done {
		return a
	}
	if a.noLease = w.is(x, gone); a.noLease {
		a.done = false
		return a
	}
	w.now++
	w.putLock(x)
	if !w.lacks(oneTransaction) {
		w.put(x, 0)
	}
	return a
}

// newestOther returns the newest key below K/ but for one's own.
func (s *state) newestOther(x int) uint8 {
	k := s.newest(s.now + 1)
	if k == uint8(x) {
		return s.newest(s.keys[x].create)
	}
	return k
}

// release deletes K and the place if K's revision is the token. The place may have had another name.
func (w *world) release(x int, token rev, renamed bool) (done bool) {
	if w.keys[lock].mod != token && !w.lacks(releaseComparesToken) {
		return false
	}
	w.now++
	w.remove(lock)
	if !renamed {
		w.remove(x)
	}
	return true
}

// leave deletes the place, and shows what was there.
func (w *world) leave(x int) answer {
	a := answer{done: true, key: w.keys[lock], own: w.keys[x]}
	if a.own.create != 0 {
		w.now++
		w.remove(x)
	}
	return a
}

// withdraw deletes the place if it is still as it was created, which means that it was not granted the lock.
func (w *world) withdraw(x int, r rev) answer {
	a := answer{done: w.keys[x].mod == r || w.lacks(leaveLooks), key: w.keys[lock], own: w.keys[x]}
	if a.done {
		w.now++
		w.remove(x)
	}
	return a
}

// endLease ends the lease of a contender, by revocation or because it ran out: its keys go in one revision, and no
// write under it will be accepted any more.
func (w *world) endLease(x int) {
	w.now++
	for y := range w.who {
		if w.lease[y] != w.lease[x] || w.is(y, gone) {
			continue
		}
		if p := w.who[y].phase; p != idle && p != quit {
			w.set(y, gone)
		}
		if !w.lacks(placeHasLease) {
			w.remove(y)
		}
		if w.keys[lock].by == uint8(y)+1 && !w.lacks(keyHasLease) {
			w.remove(lock)
		}
		w.dropLate(y, func(request) bool { return true })
		if w.who[y].phase == expiring {
			w.who[y] = contender{phase: idle, before: nothing}
		}
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
