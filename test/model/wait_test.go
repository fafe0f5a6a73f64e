package model

// await begins to wait for what is in the way.
func (w *world) await(x int, before uint8) {
	c := &w.who[x]
	c.before = before
	switch {
	case w.try[x]:
		c.phase, c.then = withdrawing, next // busy
	case w.lacks(watchThenRead):
		c.phase = reading
	default:
		c.phase = opening
	}
}

// opened: the watch is confirmed.
func (w *world) opened(x int) {
	w.say(x, "@'s watch on # is confirmed", w.who[x].before)
	w.set(x, watching)
	w.who[x].phase = reading
	if w.lacks(watchThenRead) {
		w.who[x].phase = blocked
	}
}

// inTheWay: K is, as long as it is there, and a key below K/ that is older. One that was created
// anew is newer.
func (w *world) inTheWay(x int) bool {
	k := w.who[x].before
	create, own := w.keys[k].create, w.who[x].created
	newer := w.lacks(createdAnewIsGone) || w.lacks(waitForOlder) || create == own && w.lacks(getsComeFirst)
	return create != 0 && (k == lock || create < own || newer)
}

// read: whether what it waits for is still there, and its own place.
func (w *world) read(x int) {
	c := &w.who[x]
	own := w.keys[x]
	switch {
	case own.create != c.created || own.mod != c.created && (own.mod != w.keys[lock].mod || w.lacks(lateClaimCounts)):
		w.say(x, "@ reads that its place is not what it was")
		w.startOver(x, own)
	case own.mod != c.created:
		w.say(x, "@ reads that its place was written: @ has the lock")
		w.grant(x, c.created, own.mod)
	case !w.inTheWay(x):
		w.say(x, "@ reads that # is gone", c.before)
		w.clear(x, watching|silent)
		c.phase = blocked
		w.set(x, event)
		if w.inHistory(x) == nothing {
			w.unblock(x)
		}
	case w.lacks(watchThenRead) && !w.is(x, watching):
		w.say(x, "@ reads that # is there; opens a watch", c.before)
		c.phase = opening
	default:
		w.say(x, "@ reads that # is still there", c.before)
		if w.keys[c.before].mod == w.keys[lock].mod {
			w.set(x, behindHolder)
		}
		c.phase = blocked
	}
}

// unblock: what stood in the way is gone.
func (w *world) unblock(x int) {
	w.who[x].phase = claiming
	if w.is(x, behindHolder) || w.lacks(nextFollowsHolder) {
		w.who[x].phase = claimingNext
	}
	w.clear(x, watching|event|silent|behindHolder)
	w.who[x].before = nothing
}

// wake: what stood in the way is gone. If it was the holder it is our turn, else a claim tells,
// unless the tail's history does.
func (w *world) wake(x int) bool {
	c := &w.who[x]
	if c.phase != blocked || !w.is(x, event) {
		return false
	}
	w.say(x, "@ sends claim, as # is gone", c.before)
	w.unblock(x)
	if w.lacks(claimDecides) {
		w.grant(x, c.created, c.created)
	}
	return true
}

// looksBack: what stood in the way is gone, and the history of the tail says who stood before that.
func (w *world) looksBack(x int) bool {
	place := w.inHistory(x)
	if w.who[x].phase != blocked || !w.is(x, event) || place == nothing {
		return false
	}
	w.say(x, "@ finds # before it in the tail's history", place)
	w.unblock(x)
	w.await(x, place)
	if w.lacks(historyIsRead) {
		w.set(x, watching)
		w.who[x].phase = blocked
	}
	return true
}

// inHistory is the place that is found by going back in the tail's history: the newest older one
// that is there, of those who swapped the tail. History may be compacted, and it ends where the
// tail was deleted: nobody can count on it.
func (w *world) inHistory(x int) uint8 {
	c := &w.who[x]
	if !w.linked(uint8(x)) || !w.linked(c.before) || w.is(x, behindHolder) {
		return nothing
	}
	if w.lacks(historyIsRead) && x > 0 {
		return uint8(x - 1) // be it there or not
	}
	return w.newestOf(c.created, w.linked)
}

// hears: the watch on its own place tells that it was written, which is the grant, be it by a pass
// or by an own claim that came late.
func (w *world) hears(x int) bool {
	c := &w.who[x]
	if !w.is(x, told) || !c.phase.waits() {
		return false
	}
	w.abandon(x)
	w.say(x, "@'s watch tells that its place was written: @ has the lock")
	if w.lacks(lateClaimCounts) {
		w.startOver(x, w.keys[x])
		return true
	}
	w.grant(x, c.created, c.token)
	return true
}

// reread is what a blocked contender does after a renewal, and when its place is touched.
func (w *world) reread(x int) bool {
	c := &w.who[x]
	touched := w.keys[x].mod != c.created && !w.is(x, silent)
	if c.phase != blocked || w.is(x, event) || !touched && (!w.rereads || w.lacks(silenceIsNoSign)) {
		return false
	}
	w.read(x)
	return true
}
