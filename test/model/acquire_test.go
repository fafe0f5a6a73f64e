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
	marks, turns, clock := c.marks&(stale|doubtful), c.turns, c.clock.idle()
	*c = somebody(w.start[x])
	c.marks, c.turns, c.clock = marks, turns, clock
}

// rename gives the contender's next place a name of its own: what is still on its way cannot hit
// it.
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
	a := w.acquire(x, x, true)
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
	a := w.acquire(x, x, false)
	switch {
	case a.done:
		w.say(x, "etcd applies @'s acquire: @ has the lock")
		w.grant(x, w.now, w.now)
	case a.noLease:
		w.say(x, "etcd refuses @'s acquire, its lease is gone")
		w.startOver(x, item{})
	default:
		w.say(x, "etcd applies @'s acquire: in line, behind #", a.tail)
		w.inLine(x, a)
	}
}

// inLine: the contender has a place. The tail says behind whom, if there was one.
func (w *world) inLine(x int, a answer) {
	c := &w.who[x]
	c.created, c.next = w.now, nothing
	if w.lacks(grantIsAWrite) {
		c.token = w.now
		w.set(x, told)
	}
	c.phase = listing
	if w.linked(uint8(x)) && a.tail != nothing {
		w.await(x, a.tail)
	}
}

// listedLine: K and the older places are read.
func (w *world) listedLine(x int) {
	c := &w.who[x]
	place := w.newestOf(c.created, func(k uint8) bool {
		return (k != foreign || w.lacks(placeNamesLease)) && (k != mutex || !w.lacks(waitForMutex))
	})
	if w.lacks(waitForOlder) {
		place = w.newestOf(w.now+1, func(k uint8) bool { return int(k) != x && k != foreign })
	}
	w.say(x, "@ reads the line: newest place before it is #", place)
	switch {
	case place != nothing:
		w.await(x, place)
	case w.keys[lock].create != 0:
		w.await(x, lock)
	case w.newest(c.created) != nothing:
		c.phase = claimingListed
	default:
		c.phase = claiming
	}
}
