package model

// startOver: the place is lost. What is left of it is fenced off, and another one is taken. Own is what was read of it.
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
		c.phase, c.token = releasing, own.mod
	default:
		w.end(x)
	}
}

// doubt: the outcome of acquire is not known. It is fenced before anything is built on it.
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
		w.set(x, doubtful)
		c.phase = fencing
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

// fenced: the session key is changed, so an acquire that named its old revision is refused, however late it comes.
func (w *world) fenced(x int) {
	w.say(x, "etcd changes @'s session key")
	w.dropLate(x, func(q request) bool { return q.kind == trying || q.kind == joining })
	w.who[x].phase = recalling
}

// recalled: it is read what has become of the fenced acquire.
func (w *world) recalled(x int) {
	c := &w.who[x]
	key, own := w.keys[lock], w.keys[x]
	switch {
	case own.create == 0:
		w.say(x, "@ reads that it has no place")
		w.end(x)
	case key.mod == own.mod && c.then == never:
		w.say(x, "@ reads that it has the lock; sends release")
		c.phase, c.created, c.token = releasing, own.create, own.mod
	case key.mod == own.mod:
		w.say(x, "@ reads that it has the lock")
		c.then = next
		w.grant(x, own.create, own.mod)
	case c.then == never:
		w.say(x, "@ reads that it has a place; gives it up")
		c.phase, c.created = withdrawing, own.create
	case own.mod == own.create:
		w.say(x, "@ reads that it has a place; sends claim")
		c.phase, c.created, c.then = claiming, own.create, next
	default:
		w.say(x, "@ reads that its place is overwritten")
		c.phase, c.created, c.token = releasing, own.create, own.mod
	}
}
