package model

// begin sends the request to join, under a new lease if the old one is no more.
func (w *world) begin(x int) {
	c := &w.who[x]
	if w.is(x, gone) {
		w.clear(x, gone|stale)
		w.rename(x)
		c.clock = newClock(w.scenario)
	}
	for i := range w.late {
		if w.late[i].isOf(x) {
			w.late[i].moved = true
		}
	}
	*c = contender{marks: c.marks & (stale | doubtful), phase: w.start[x], turns: c.turns, before: nothing, clock: c.clock.idle()}
}

// rename gives the contender's next place a name of its own: what is still on its way cannot hit it.
func (w *world) rename(x int) {
	w.clear(x, doubtful)
	for i := range w.late {
		if w.late[i].isOf(x) {
			w.late[i].renamed = true
		}
	}
}

// tried: the first half of acquire is applied and answered.
func (w *world) tried(x int) {
	a := w.acquire(x, true)
	switch {
	case a.done:
		w.say(x, "etcd applies @'s first half of acquire: @ has the lock")
		w.grant(x, w.now, w.now)
	case a.noLease:
		w.startOver(x, item{})
	case w.try[x]:
		w.say(x, "etcd refuses @'s first half of acquire; @ reads who is there")
		w.who[x].phase = asking
	default:
		w.say(x, "etcd refuses @'s first half of acquire; @ sends acquire")
		w.who[x].phase = joining
	}
}

// asked: TryLock has read who is there.
func (w *world) asked(x int) {
	if newest := w.newest(w.now + 1); w.keys[lock].create != 0 || newest != nothing && newest != foreign {
		w.say(x, "TryLock of @ reads that somebody is there, and fails")
		w.end(x)
		return
	}
	w.say(x, "TryLock of @ reads that nobody is there; sends acquire")
	w.who[x].phase = joining
}

// joined: acquire is applied and answered.
func (w *world) joined(x int) {
	a := w.acquire(x, false)
	switch {
	case a.done:
		w.say(x, "etcd applies @'s acquire: @ has the lock")
		w.grant(x, w.now, w.now)
	case a.noLease:
		w.say(x, "etcd refuses @'s acquire, its lease is gone")
		w.startOver(x, item{})
	default:
		w.say(x, "etcd applies @'s acquire: in line, newest before it is #", a.newest)
		w.who[x].created = w.now
		w.obstacle(x, a)
	}
}

// obstacle decides what to wait for: the newest older place, else K. A key that is no place says nothing of
// what is behind it, so the line is listed.
func (w *world) obstacle(x int, a answer) {
	switch {
	case a.newest == foreign && !w.lacks(placeNamesLease):
		if w.lacks(listingTells) {
			w.set(x, listed)
			w.found(x, nothing, a.key)
			return
		}
		w.who[x].phase, w.who[x].behind = listing, a.key.create
	case a.newest == mutex && w.lacks(waitForMutex):
		w.found(x, nothing, a.key)
	default:
		w.found(x, a.newest, a.key)
	}
}

// found begins to wait for what is in the way; if nothing is, to claim.
func (w *world) found(x int, place uint8, key item) {
	c := &w.who[x]
	before, create := place, rev(0)
	switch {
	case place != nothing:
		create = w.keys[place].create
	case key.create != 0:
		before, create = lock, key.create
	}
	switch {
	case before == nothing:
		c.phase, c.behind = claiming, 0
		if w.is(x, listed) {
			c.phase = claimingListed
		}
		w.clear(x, listed)
	case w.try[x]:
		c.phase, c.then = revoking, next // busy
	default:
		w.clear(x, listed)
		c.phase, c.before, c.behind = opening, before, create
		if w.lacks(watchThenRead) {
			c.phase = reading
		}
	}
}

// listedLine: the older keys are listed.
func (w *world) listedLine(x int) {
	c := &w.who[x]
	place := w.newest(c.created)
	for place == foreign {
		place = w.newest(w.keys[foreign].create)
	}
	w.say(x, "@ lists the line: newest place before it is #", place)
	w.found(x, place, item{create: c.behind})
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

// read: whether what it waits for is still there, and its own place.
func (w *world) read(x int) {
	c := &w.who[x]
	own, before := w.keys[x], w.keys[c.before]
	there := before.create == c.behind || before.create != 0 && w.lacks(createdAnewIsGone)
	switch {
	case own.create != c.created || own.mod != c.created && w.lacks(lateClaimCounts):
		w.say(x, "@ reads that its place is not what it was")
		w.startOver(x, own)
	case own.mod != c.created:
		w.say(x, "@ reads that its place was written; sends claim to know why")
		w.unblock(x)
	case !there:
		w.say(x, "@ reads that # is gone; sends claim", c.before)
		w.unblock(x)
	case w.lacks(watchThenRead) && !w.is(x, watching):
		w.say(x, "@ reads that # is there; opens a watch", c.before)
		c.phase = opening
	default:
		w.say(x, "@ reads that # is still there", c.before)
		c.phase = blocked
	}
}

// unblock: it seems that it is our turn.
func (w *world) unblock(x int) {
	c := &w.who[x]
	w.clear(x, watching|event|silent)
	c.phase, c.before, c.behind = claiming, nothing, 0
}

// wake: the watch tells that what stood in the way is gone.
func (w *world) wake(x int) bool {
	if w.who[x].phase != blocked || !w.is(x, event) {
		return false
	}
	w.say(x, "@'s watch tells that # is gone; sends claim", w.who[x].before)
	w.unblock(x)
	if w.lacks(claimDecides) {
		w.grant(x, w.who[x].created, w.who[x].created)
	}
	return true
}

// reread is what a blocked contender does after a renewal, and when its place is touched.
func (w *world) reread(x int) bool {
	c := &w.who[x]
	if c.phase != blocked || w.keys[x].mod == c.created && !w.rereads || w.rereads && w.lacks(silenceIsNoSign) {
		return false
	}
	w.read(x)
	return true
}

// claimed: claim is applied and answered.
func (w *world) claimed(x int) {
	c := &w.who[x]
	a := w.claim(x, w.keys[x], c.created, c.phase == claimingListed)
	won := a.key.create != 0 && a.key.mod == a.own.mod && !w.lacks(repeatedClaimLooks) ||
		a.key.by != 0 && w.lease[a.key.by-1] == w.lease[x] && w.lacks(holderByRevision)
	switch {
	case a.noLease:
		w.say(x, "etcd refuses @'s claim, its lease is gone")
		w.startOver(x, a.own)
	case a.done:
		w.say(x, "etcd applies @'s claim: @ has the lock")
		token := w.now
		if w.lacks(oneTransaction) {
			w.now++
			w.put(x, 0)
		}
		w.grant(x, c.created, token)
	case a.own.create != c.created:
		w.say(x, "etcd refuses @'s claim: its place is gone")
		w.startOver(x, a.own)
	case won:
		w.say(x, "etcd refuses @'s claim, and shows that @ has the lock")
		w.grant(x, c.created, a.key.mod)
	case a.own.mod != c.created && !w.lacks(repeatedClaimLooks):
		w.say(x, "etcd refuses @'s claim: its place is overwritten")
		w.startOver(x, a.own)
	case c.phase == claimingListed:
		w.say(x, "etcd refuses @'s claim: K is there")
		w.found(x, nothing, a.key)
	default:
		w.say(x, "etcd refuses @'s claim: newest before it is #", a.newest)
		w.set(x, listed)
		w.obstacle(x, a)
	}
}

// grant: the contender knows that it has the lock. With its validity over it has to renew before it may work.
func (w *world) grant(x int, created, token rev) {
	c := &w.who[x]
	c.created, c.token, c.behind, c.phase = created, token, 0, working
	w.clear(x, listed)
	if w.is(x, stale) && !w.lacks(renewBeforeWork) {
		c.phase = renewing
	}
	for y := range w.who {
		if place := w.keys[y]; y != x && w.who[y].phase.waits() && place.create != 0 && place.create < created {
			w.broken |= inOrder
		}
	}
	if m := w.mutex; (m.phase == listing || m.phase == blocked) && m.create < created {
		w.broken |= inOrder
	}
	switch {
	case w.lacks(tokenIsModRevision):
		token = created
	case token != w.keys[lock].mod:
		w.broken |= growing
	}
	w.tokens(token)
}

// tokens notes the token of who has just been granted the lock.
func (w *world) tokens(token rev) {
	if token <= w.last {
		w.broken |= growing
	}
	w.last = max(w.last, token)
}

// renewed: a renewal that had to come before the work is answered.
func (w *world) renewed(x int) {
	if w.is(x, gone) {
		w.say(x, "@ learns that its lease is gone")
		w.startOver(x, w.keys[x])
		return
	}
	w.say(x, "@ renews its lease, and begins to work")
	w.clear(x, stale)
	w.who[x].clock = newClock(w.scenario)
	w.who[x].phase = working
}
