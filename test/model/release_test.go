package model

// finish: the work ends by itself. Who has lost the lock must not depend on that.
func (w *world) finish(x int) bool {
	c := &w.who[x]
	if c.phase != working {
		return false
	}
	w.aside = w.keys[lock].mod != c.token || w.keys[x].mod != c.token
	w.sendRelease(x)
	if c.next == spent {
		return w.say(x, "@'s work ends; sends release")
	}
	return w.say(x, "@'s work ends; passes to #", c.next)
}

// finishUnknowing: the work ends before the watch on the tail has told who comes next, or it was
// interrupted and never will.
func (w *world) finishUnknowing(x int) bool {
	c := &w.who[x]
	if c.phase != working || c.next >= nothing {
		return false
	}
	w.aside = w.keys[lock].mod != c.token || w.keys[x].mod != c.token
	c.next = spent
	w.sendRelease(x)
	return w.say(x, "@'s work ends; does not know its successor, sends release")
}

// sendRelease: what is not known by now is not known.
func (w *world) sendRelease(x int) {
	c := &w.who[x]
	c.phase = releasing
	if c.next == nothing {
		c.next = spent
	}
}

// look reads K and the place while the work goes on.
func (w *world) look(x int) bool {
	c := &w.who[x]
	key, own := w.keys[lock], w.keys[x]
	switch {
	case c.phase != working:
		return false
	case (own.create != c.created || own.mod != c.token) && !w.lacks(placeIsJudged):
		w.say(x, "@ reads that its place is not its own any more: its work is killed")
		w.alarm(x)
		w.drop(x)
		return true
	case key.mod != c.token && !w.lacks(keyIsJudged):
		w.say(x, "@ reads that K is not its own any more: its work is asked to stop")
		w.alarm(x)
		c.phase = stopping
		if w.lacks(deadBeforeLeaving) {
			w.leave(x)
		}
		return true
	}
	return false
}

// alarm: the contender is told of a loss. There must have been one.
func (w *world) alarm(x int) {
	if !w.is(x, touched|gone) {
		w.broken |= noFalseAlarm
	}
}

// die: the work that was asked to stop is dead.
func (w *world) die(x int) bool {
	if w.who[x].phase != stopping {
		return false
	}
	w.say(x, "@'s work is dead")
	w.drop(x)
	return true
}

// drop removes what is left of a lock that was lost: by revoking the lease, or as a release if that
// serves others too.
func (w *world) drop(x int) {
	switch {
	case w.shared(x):
		w.sendRelease(x)
	case w.is(x, stale):
		w.who[x].phase = expiring
	default:
		w.who[x].phase = revoking
	}
}

// released: release is applied and answered.
func (w *world) released(x int) {
	c := w.who[x]
	switch {
	case w.release(x, c.token, false, c.next):
		w.say(x, "etcd applies @'s release")
		w.end(x)
	case w.lacks(refusedReleaseLeaves):
		w.say(x, "etcd refuses @'s release")
		w.end(x)
	default:
		w.say(x, "etcd refuses @'s release; @ leaves the line")
		w.who[x].phase = leaving
	}
}

// left: what follows a refused release is applied and answered. It says why it was refused.
func (w *world) left(x int) {
	w.say(x, "etcd deletes @'s place")
	a := w.leave(x)
	// An earlier release was applied.
	before := w.is(x, repeated) && a.own.create == 0 && !w.lacks(absentAfterRepeated)
	if w.who[x].then == next && !before && !w.is(x, stale) {
		w.alarm(x)
	}
	w.end(x)
}

// end: nothing of the contender is left in etcd that it knows of.
func (w *world) end(x int) {
	c := &w.who[x]
	if w.is(x, doubtful) && !w.lacks(newNameAfterDoubt) {
		w.rename(x)
	}
	switch {
	case c.then == never:
		*c = somebody(quit)
	case c.then == again:
		w.begin(x)
	case c.turns > 1:
		c.turns--
		w.begin(x)
	default:
		*c = somebody(idle)
	}
}

// withdrawn: a place is given up, unless it was granted the lock meanwhile. Then that is given on
// as a holder gives it on.
func (w *world) withdrawn(x int) {
	c := &w.who[x]
	a := w.withdraw(x, c.created, c.before)
	switch {
	case a.noLease:
		w.say(x, "etcd refuses @'s leave, the lease of the place before is gone")
	case a.done:
		w.say(x, "etcd applies @'s leave")
		w.end(x)
	case a.own.create != 0 && w.lacks(refusedLeaveGivesOn):
		w.say(x, "etcd refuses @'s leave")
		w.end(x)
	case a.own.create != 0:
		w.say(x, "etcd refuses @'s leave: it has the lock; sends release")
		c.token = a.own.mod
		w.sendRelease(x)
	case w.shared(x):
		w.say(x, "etcd refuses @'s leave: its place is gone")
		c.phase = clearing
	default:
		w.say(x, "etcd refuses @'s leave: its place is gone")
		c.phase = revoking
	}
}
