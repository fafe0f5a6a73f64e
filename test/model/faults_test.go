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

// leaveLine: who waits gives up.
func (w *world) leaveLine(x int) bool {
	c := &w.who[x]
	cleaning := c.then == again && (c.phase == revoking || c.phase == recalling || c.phase == clearing)
	if !c.phase.acquires() && !cleaning || w.unseen(x) || !w.strike(giveUp) {
		return false
	}
	w.say(x, "@ gives up")
	c.then = never
	if cleaning {
		return true
	}
	before := c.phase
	w.abandon(x)
	w.clear(x, watching|event|told|silent|behindHolder)
	switch {
	case w.lacks(giveUpLeaves):
		c.phase = quit
	case before == asking:
		w.end(x)
	case before != trying && before != joining && before != renewing:
		c.phase = withdrawing
	case before == renewing:
		w.sendRelease(x)
	case w.shared(x):
		w.leaveStray(x)
		w.end(x)
	default:
		c.phase = revoking
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
			marks, clock := w.who[y].marks&(gone|unbound), w.who[y].clock.idle()
			w.who[y] = somebody(crashed)
			w.who[y].marks, w.who[y].clock = marks, clock
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

// fallSilent: the member behind the watches is silent, and their stream stays open and empty.
func (w *world) fallSilent(x int) bool {
	if !w.is(x, watching) || w.is(x, silent) || !w.strike(silence) {
		return false
	}
	w.clear(x, event|told)
	w.set(x, silent)
	if c := &w.who[x]; c.next == nothing {
		c.next = spent // cannot be known any more
	}
	return w.say(x, "@'s watches fall silent")
}

// readBefore: the renewer's read shows the place as it is before the grant, and is answered later.
func (w *world) readBefore(x int) bool {
	if p := w.who[x].phase; p != claimingNext && p != claiming && p != blocked || w.is(x, looking) || !w.strike(oldReads) {
		return false
	}
	w.set(x, looking)
	return w.say(x, "@ reads K and its place after a renewal, and the answer takes its time")
}

func (w *world) answeredAfter(x int) bool {
	if !w.is(x, looking) || w.who[x].phase.waits() {
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
