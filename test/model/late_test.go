package model

// abandon makes the write under way one that may be applied late, or never. Under a lease that is
// no more nothing comes of it.
func (w *world) abandon(x int) {
	c := &w.who[x]
	if w.is(x, gone) {
		return
	}
	q := request{kind: c.phase, who: uint8(x), other: nothing}
	switch c.phase {
	case trying, joining, leaving:
	case claimingNext, claiming, claimingListed:
		q.rev = c.created
	case withdrawing:
		q.rev, q.other = c.created, c.before
	case releasing:
		q.rev, q.other = c.token, c.next
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
	if phaseNames[c.phase] == "" || w.unseen(x) || !w.strike(late) {
		return false
	}
	w.abandon(x)
	w.say(x, "@ gets no answer to its "+phaseNames[c.phase])
	switch c.phase {
	case trying, joining:
		w.doubt(x)
	case claimingNext, claiming, claimingListed:
		w.set(x, doubtful)
		if w.lacks(unknownClaimIsRepeated) {
			w.grant(x, c.created, w.now)
		}
	case releasing:
		w.set(x, doubtful|repeated)
		if w.lacks(unknownReleaseIsRepeated) {
			w.end(x)
		}
		if w.lacks(releaseIsFinal) {
			c.phase = working
		}
	case withdrawing:
		w.set(x, doubtful)
		if !w.shared(x) {
			c.phase = revoking
		}
	default:
		w.set(x, doubtful)
	}
	return true
}

// unseen: one more place would have to be given up than the exploration allows.
func (w *world) unseen(x int) bool {
	p := w.who[x].phase
	return (p == trying || p == joining) && w.shared(x) && w.strayLeft()
}

// applyLate: a write of which nobody awaits the answer reaches etcd. It must not do anything that
// its sender does not reckon with.
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
		done = w.acquire(x, x, true).done
	case joining:
		done = !w.acquire(x, x, false).noLease
	case claimingNext, claiming, claimingListed:
		done = w.claim(x, w.keys[x], q.rev, q.kind).done
	case releasing:
		w.release(x, q.rev, false, q.other)
	case leaving:
		w.leave(x)
	case withdrawing:
		w.withdraw(x, q.rev, q.other)
	}
	if done && q.moved {
		w.broken |= noStrays
	}
	return true
}

// applyRenamed: what a late write names is a place that its sender has done with. What it would put
// nobody reckons with, but the session with a place of which it has given up the name.
func (w *world) applyRenamed(q request) {
	x := int(q.who)
	switch q.kind {
	case trying, joining:
		if !w.shared(x) {
			w.broken |= noStrays
			return
		}
		w.acquire(x, stray, q.kind == trying)
	case claimingNext, claiming, claimingListed:
		before := w.state
		if w.claim(x, item{}, q.rev, q.kind).done {
			w.state, w.broken = before, w.broken|noStrays
		}
	case releasing:
		w.release(x, q.rev, true, q.other)
	}
}

// forgetLate drops late requests of which the comparison can never hold again.
func (w *world) forgetLate() {
	for i, q := range w.late {
		x := int(q.who)
		useless := false
		switch q.kind {
		case claimingNext, claiming, claimingListed:
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
