package model

// startOver: the place is lost. What is left of it is fenced off, and another one is taken. Own is
// what was read of it.
func (w *world) startOver(x int, own item) {
	c := &w.who[x]
	if c.phase.waits() && !w.is(x, touched|gone) {
		w.broken |= inOrder // it has not left, and goes to the end of the line
	}
	c.then = again
	switch {
	case !w.shared(x):
		c.phase = revoking
	case own.create == c.created && own.create != 0:
		c.token = own.mod
		w.sendRelease(x)
	case c.created != 0:
		c.phase = clearing
	default:
		w.end(x)
	}
}

// doubt: the outcome of acquire is not known. Nothing is built on it before it is fenced: its lease
// is revoked, or its name given up.
func (w *world) doubt(x int) {
	c := &w.who[x]
	c.then = again
	switch {
	case w.lacks(unknownAcquireIsFenced):
		w.begin(x)
	case w.lacks(absentIsNotFinal):
		c.phase = recalling
	case w.lacks(revokeIsConfirmed):
		w.set(x, gone)
		w.begin(x)
	case w.shared(x):
		w.leaveStray(x)
		w.end(x)
	default:
		c.phase = revoking
	}
}

// revoked: the lease is revoked, or was no more.
func (w *world) revoked(x int) {
	switch {
	case !w.is(x, gone):
		w.say(x, "etcd revokes @'s lease")
		w.endLease(x)
	case w.lacks(notFoundIsDone):
		return
	default:
		w.say(x, "etcd does not find @'s lease")
	}
	w.end(x)
}

// recalled: it is read what has become of the unknown acquire.
func (w *world) recalled(x int) {
	if w.keys[x].create == 0 {
		w.say(x, "@ reads that it has no place")
		w.end(x)
		return
	}
	w.say(x, "@ reads that it has a place; revokes its lease")
	w.who[x].phase = revoking
}
