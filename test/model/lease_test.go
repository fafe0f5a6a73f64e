package model

// loseTouch: nobody renews a lease any more until validity ends. By then all work under it is dead.
func (w *world) loseTouch(x int) bool {
	if c := w.who[x].phase; !(c.acquires() || c.holds()) || w.is(x, stale) || !w.strike(cutOff) {
		return false
	}
	w.say(x, "@ cannot renew: validity ends, and its work is dead")
	for y := range w.who {
		if w.lease[y] == w.lease[x] && !w.who[y].phase.over() {
			w.validityEnds(y)
		}
	}
	return true
}

func (w *world) validityEnds(x int) {
	c := &w.who[x]
	w.set(x, stale)
	switch {
	case c.phase != renewing && c.phase.holds() && w.is(x, gone):
		*c = somebody(idle)
	case c.phase != renewing && c.phase.holds() && !w.shared(x):
		w.abandon(x)
		c.phase = expiring
	case c.phase.works():
		w.sendRelease(x)
	}
}

// renew: who waits and had lost touch reaches etcd again.
func (w *world) renew(x int) bool {
	if !w.who[x].phase.waits() || !w.is(x, stale) || w.is(x, gone) || w.timed {
		return false
	}
	for y := range w.who {
		if w.lease[y] == w.lease[x] && !w.is(y, gone) {
			w.clear(y, stale)
		}
	}
	return w.say(x, "@ renews its lease")
}

// expire: a lease runs out.
func (w *world) expire(x int) bool {
	if !w.leases(x) {
		return false
	}
	forgotten := true // nobody will renew it
	for y := range w.who {
		if w.lease[y] != w.lease[x] || !w.leases(y) {
			continue
		}
		if y < x || !w.mayExpire(y) {
			return false
		}
		forgotten = forgotten && (w.who[y].phase == crashed || w.who[y].phase == expiring)
	}
	w.aside = !forgotten
	w.say(x, "@'s lease runs out")
	w.endLease(x)
	return true
}

// leases reports whether a contender has a lease that matters to it.
func (w *world) leases(x int) bool {
	p := w.who[x].phase
	return p != idle && p != quit && !w.is(x, gone)
}

// mayExpire: a lease cannot run out while the validity lasts that was counted on.
func (w *world) mayExpire(x int) bool {
	if w.timed {
		return w.who[x].clock.server == 0
	}
	p := w.who[x].phase
	return p == crashed || p == expiring || w.is(x, stale) || w.lacks(leaseOutlivesWork)
}
