package model

// A fault is something that need not happen, and that happens a limited number of times.
type fault uint8

const (
	late      fault = iota // a sender gives up on a write, which is applied late or never
	crash                  // a process dies, and its work with it
	giveUp                 // a contender that waits is told not to
	cutOff                 // a lease is not renewed until validity ends
	silence                // a watch tells nothing any more
	byHand                 // the operator touches K
	force                  // the operator deletes a place, or revokes a lease
	anyFault               // all of the above together
	oldReads               // a read from before a grant is answered after it
	foreigns               // somebody puts a key below K/ that is no place
	elections              // another leader is elected, and the old one goes on answering

	faults
	counted = anyFault
)

// strike uses up a fault, if there may be one.
func (w *world) strike(f fault) bool {
	if w.budget[f] == 0 || f < counted && w.budget[anyFault] == 0 {
		return false
	}
	w.budget[f]--
	if f < counted {
		w.budget[anyFault]--
	}
	w.aside = true
	return true
}

// abandon makes the write under way one that may be applied late, or never.
func (w *world) abandon(x int) {
	c := &w.who[x]
	q := request{kind: c.phase, who: uint8(x)}
	switch c.phase {
	case trying, joining, leaving:
	case claiming, claimingListed, withdrawing:
		q.rev = c.created
	case releasing:
		q.rev = c.token
	default:
		return
	}
	for i := range w.late {
		if w.late[i].kind == idle {
			w.late[i] = q
			return
		}
	}
	panic("more late requests than slots")
}

// timeOut: a contender gives up on its request, and does what it does when an outcome is unknown.
func (w *world) timeOut(x int) bool {
	c := &w.who[x]
	if phaseNames[c.phase] == "" || !w.strike(late) {
		return false
	}
	w.abandon(x)
	w.say(x, "@ gets no answer to its "+phaseNames[c.phase])
	switch c.phase {
	case trying, joining:
		w.doubt(x)
	case claiming, claimingListed:
		w.set(x, doubtful)
		if w.lacks(unknownClaimIsRepeated) {
			w.grant(x, c.created, w.now)
		}
	case releasing:
		w.set(x, doubtful|repeated)
		if w.lacks(releaseIsFinal) {
			c.phase = working
		}
	default:
		w.set(x, doubtful)
	}
	return true
}

// applyLate: a write of which nobody awaits the answer reaches etcd. It must not do anything that its sender does not reckon with.
func (w *world) applyLate(i int) bool {
	q := w.late[i]
	if q.kind == idle {
		return false
	}
	w.late[i] = request{}
	x := int(q.who)
	w.aside = true
	w.say(x, "etcd is reached by @'s "+phaseNames[q.kind]+", late")
	if q.renamed {
		w.applyRenamed(q)
		return true
	}
	done := false
	switch q.kind {
	case trying:
		done = w.acquire(x, true).done
	case joining:
		done = !w.acquire(x, false).noLease
	case claiming, claimingListed:
		done = w.claim(x, w.keys[x], q.rev, q.kind == claimingListed).done
	case releasing:
		w.release(x, q.rev, false)
	case leaving:
		w.leave(x)
	case withdrawing:
		w.withdraw(x, q.rev)
	}
	if done && q.moved {
		w.broken |= noGhosts
	}
	return true
}

// applyRenamed: what a late write names is a place that its sender has done with. What it would put would be a ghost.
func (w *world) applyRenamed(q request) {
	x := int(q.who)
	switch q.kind {
	case trying, joining:
		w.broken |= noGhosts
	case claiming, claimingListed:
		before := w.state
		if w.claim(x, item{}, q.rev, q.kind == claimingListed).done {
			w.state, w.broken = before, w.broken|noGhosts
		}
	case releasing:
		w.release(x, q.rev, true)
	}
}

// forgetLate drops late requests of which the comparison can never hold again.
func (w *world) forgetLate() {
	for i, q := range w.late {
		x := int(q.who)
		useless := false
		switch q.kind {
		case claiming, claimingListed:
			useless = (q.renamed || w.keys[x].mod != q.rev) && !w.lacks(claimComparesPlace)
		case releasing:
			useless = w.keys[lock].mod != q.rev && !w.lacks(releaseComparesToken)
		case leaving:
			useless = q.renamed
		case withdrawing:
			useless = q.renamed || w.keys[x].mod != q.rev && !w.lacks(leaveLooks)
		}
		if useless {
			w.late[i] = request{}
		}
	}
}

// leaveLine: who waits gives up.
func (w *world) leaveLine(x int) bool {
	c := &w.who[x]
	cleaning := c.then == again && (c.phase == revoking || c.phase == fencing || c.phase == recalling)
	if !c.phase.acquires() && !cleaning || !w.strike(giveUp) {
		return false
	}
	w.say(x, "@ gives up")
	c.then = never
	if cleaning {
		return true
	}
	w.abandon(x)
	w.clear(x, watching|event|silent|listed)
	c.before, c.behind = nothing, 0
	switch {
	case w.lacks(giveUpRevokes):
		c.phase = quit
	case !w.shared(x):
		c.phase = revoking
	case c.phase == trying || c.phase == joining:
		w.set(x, doubtful)
		c.phase = fencing
	case c.phase == renewing:
		c.phase = releasing
	default:
		c.phase = withdrawing
	}
	return true
}

// dies: a process is killed, with all contenders on its lease and their work.
func (w *world) dies(x int) bool {
	if w.who[x].phase.over() || !w.strike(crash) {
		return false
	}
	w.say(x, "@'s process is killed")
	for y := range w.who {
		if w.lease[y] == w.lease[x] && !w.who[y].phase.over() {
			w.abandon(y)
			w.who[y] = contender{flags: w.who[y].flags & gone, phase: crashed, before: nothing, clock: w.who[y].clock.idle()}
		}
	}
	return true
}

func (w *world) mutexDies() bool {
	if m := w.mutex.phase; m == idle || m == crashed || !w.strike(crash) {
		return false
	}
	w.mutex = neighbour{phase: crashed, before: nothing}
	return w.say(mutex, "@'s process is killed")
}

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
	case c.phase != renewing && c.phase.holds() && !w.shared(x):
		w.abandon(x)
		c.phase = expiring
	case c.phase.works():
		c.phase = releasing
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
	for y := range w.who {
		if w.who[y].phase == expiring && w.is(y, gone) {
			w.who[y] = contender{phase: idle, before: nothing}
		}
	}
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

// fallSilent: the member behind a watch is silent, and its stream stays open and empty.
func (w *world) fallSilent(x int) bool {
	if !w.is(x, watching) || w.is(x, silent) || !w.strike(silence) {
		return false
	}
	w.clear(x, event)
	w.set(x, silent)
	return w.say(x, "@'s watch falls silent")
}

// readBefore: the renewer's read shows the place as it is before the grant, and is answered later.
func (w *world) readBefore(x int) bool {
	if w.who[x].phase != claiming || w.is(x, looking) || !w.strike(oldReads) {
		return false
	}
	w.set(x, looking)
	return w.say(x, "@ reads K and its place after a renewal, and the answer takes its time")
}

func (w *world) answeredAfter(x int) bool {
	if !w.is(x, looking) || w.who[x].phase == claiming {
		return false
	}
	w.clear(x, looking)
	w.say(x, "the old answer comes to @")
	if w.who[x].phase == working && w.lacks(oldAnswersAreNotJudged) {
		w.alarm(x)
		w.drop(x)
	}
	return true
}

// putForeign: somebody has a key below K/ that is no place.
func (w *world) putForeign() bool {
	if !w.strike(foreigns) {
		return false
	}
	w.now++
	w.put(foreign, 0)
	return w.say(foreign, "somebody puts a key below K/ that is no place")
}
