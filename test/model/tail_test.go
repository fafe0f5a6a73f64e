package model

// linked is true of a place whose contender swaps the tail when it joins. All other keys below K/
// are strangers' to those.
func (s *scenario) linked(place uint8) bool {
	return place < ours && !s.unlinked[place] || place == stray
}

// swapTail: a place was put behind another one, in the current revision. Those who stand in line
// hear of it.
func (w *world) swapTail(place uint8) {
	w.tail = place
	for x := range w.who {
		if uint8(x) != place && w.stands(x) && w.linked(uint8(x)) && !w.is(x, silent) {
			w.tailChanged(x, place)
		}
	}
}

// stands is true of who has a place that it knows of, and may yet give the lock on.
func (w *world) stands(x int) bool {
	p := w.who[x].phase
	return p.waits() || p == withdrawing || p == renewing || p.works()
}

// tailChanged: the first change after one's own place names the successor.
func (w *world) tailChanged(x int, place uint8) {
	c := &w.who[x]
	switch {
	case w.lacks(tailIsFollowedFromBefore) && !w.is(x, missed):
		w.set(x, missed)
	case c.next == nothing || w.lacks(firstChangeNames):
		c.next = place
	}
}

// spend: a place is not what it was when it joined. A pass to it would be refused.
func (w *world) spend(place uint8) {
	if w.lacks(passComparesSuccessor) || w.lacks(passFallsBack) {
		return
	}
	for x := range w.who {
		if w.who[x].next == place {
			w.who[x].next = spent
		}
	}
	for i, q := range w.late {
		if q.kind == releasing && q.other == place {
			w.late[i].other = spent
		}
	}
}

// dropTail deletes the tail if it names a place.
func (w *world) dropTail(place uint8) {
	if w.tail == place && !w.lacks(tailGoesWithPlace) {
		w.tail = nothing
	}
}

// putBackTail has the tail name the place before, if it names the one that leaves. If that does not
// stand there, the tail is deleted: a put under a lease that may be gone would have the whole leave
// refused. It is no change that names a successor: whoever stands before has seen the one that
// leaves, or somebody else, join.
func (w *world) putBackTail(place, before uint8) {
	there := before < lock && w.linked(before) && (w.keys[before].create != 0 || w.lacks(putBackComparesPlace))
	if w.tail != place || !there {
		w.dropTail(place)
		return
	}
	w.tail = before
	for x := range w.who {
		// One that has left has no use for a successor.
		there := w.keys[x].create != 0 && w.stands(x) && w.linked(uint8(x))
		if there && !w.is(x, silent) && w.who[x].next == nothing {
			w.broken |= inOrder
		}
	}
}

// strangers reports whether there are keys below K/ that are not in the range of those who swap the
// tail. One comparison finds that out.
func (w *world) strangers() bool {
	return nothing != w.newestOf(w.now+1, func(k uint8) bool {
		return !w.linked(k) && (k >= mutex || !w.lacks(unlinkedIsAStranger))
	})
}

// mayPass compares, for a pass, that the lock is ours, that the successor stands where it joined,
// and that no stranger is in line. (That the passing one's place is compared, too, is good for
// nothing that this model knows: all holds without it.)
func (w *world) mayPass(x int, token rev, renamed bool, to uint8) bool {
	ours := w.keys[lock].mod == token || w.lacks(passComparesKey)
	ours = ours && !renamed && w.keys[x].mod == token
	there := w.keys[to].create != 0 && w.keys[to].mod == w.keys[to].create || w.lacks(passComparesSuccessor)
	return ours && there && (!w.strangers() || w.lacks(passComparesStrangers))
}

// pass gives K to the successor, and touches its place. The successor must be the next in line, and
// K the passing one's.
func (w *world) pass(x int, to uint8) {
	w.now++
	if k := w.keys[lock]; k.create != 0 && k.by != uint8(x)+1 {
		w.broken |= oneHolder
	}
	if w.lacks(passedKeyHasLease) {
		w.put(lock, uint8(x)+1)
	} else {
		w.put(lock, to+1)
	}
	w.remove(x)
	w.grantTo(to)
	if to < ours && w.lacks(touchKeepsLease) {
		w.set(int(to), unbound)
	}
	w.overtakes(w.keys[to].create)
}

// overtakes: the lock is granted to the place created at r. Nobody may have an older one.
func (w *world) overtakes(r rev) {
	if w.newestOf(r, func(k uint8) bool { return k != foreign }) != nothing {
		w.broken |= inOrder
	}
}

// release passes K on, or deletes it and the place, if K's revision is the token. The place may
// have had another name.
func (w *world) release(x int, token rev, renamed bool, to uint8) (done bool) {
	if to < nothing && w.mayPass(x, token, renamed, to) {
		w.pass(x, to)
		return true
	}
	if w.keys[lock].mod != token && !w.lacks(releaseComparesToken) || to != nothing && to != spent && w.lacks(passFallsBack) {
		return false
	}
	w.now++
	w.remove(lock)
	if !renamed {
		w.remove(x)
		w.dropTail(uint8(x))
	}
	return true
}
