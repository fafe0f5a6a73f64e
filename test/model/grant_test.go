package model

// claimed: claim is applied and answered.
func (w *world) claimed(x int) {
	c := &w.who[x]
	a := w.claim(x, w.keys[x], c.created, c.phase)
	won := a.key.create != 0 && a.key.mod == a.own.mod ||
		a.key.by != 0 && w.leaseOf(a.key.by-1) == w.lease[x] && w.lacks(holderByRevision)
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
	case a.own.mod != c.created:
		w.say(x, "etcd refuses @'s claim: its place is overwritten")
		w.startOver(x, a.own)
	case c.phase == claimingNext:
		w.say(x, "etcd refuses @'s claim; @ sends one that compares the line")
		c.phase = claiming
	case w.lacks(listingTells):
		w.say(x, "etcd refuses @'s claim")
		c.phase = claimingListed
	default:
		w.say(x, "etcd refuses @'s claim")
		c.phase = listing
	}
}

// grant: the contender knows that it has the lock. With its validity over it has to renew before it
// may work.
func (w *world) grant(x int, created, token rev) {
	c := &w.who[x]
	c.created, c.token, c.phase = created, token, working
	w.clear(x, watching|event|told|silent|behindHolder)
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
	if w.is(x, touched|gone) {
		return // lost before it was known: others may have had it since
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
