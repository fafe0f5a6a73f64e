package model

// The Mutex of etcd's concurrency package waits for all older keys below K/ and ignores K. It has
// no notion of a loss: no step here takes its key away while it works.

// mutexRequest: the request of the Mutex that is under way is applied and answered.
func (w *world) mutexRequest() bool {
	m := &w.mutex
	switch m.phase {
	case joining:
		w.now++
		w.put(mutex, 0)
		m.create = w.now
		if w.newest(m.create) == nothing {
			w.say(mutex, "etcd puts @'s key: @ has the lock")
			w.mutexGranted()
			return true
		}
		w.say(mutex, "etcd puts @'s key, not the oldest")
		m.phase = listing
	case listing:
		older := w.newest(m.create)
		if older == nothing {
			w.say(mutex, "@ finds no older key: @ has the lock")
			w.mutexGranted()
			return true
		}
		w.say(mutex, "@ finds # and waits for it", older)
		m.phase, m.before = blocked, older
	case releasing:
		w.now++
		w.remove(mutex)
		if m.turns--; m.turns > 0 {
			w.say(mutex, "etcd deletes @'s key; @ locks again")
			*m = neighbour{phase: joining, turns: m.turns, before: nothing}
			return true
		}
		w.say(mutex, "etcd deletes @'s key")
		*m = neighbour{phase: idle, before: nothing}
	default:
		return false
	}
	return true
}

func (w *world) mutexGranted() {
	w.mutex.phase = working
	for y := range w.who {
		if place := w.keys[y]; w.who[y].phase.waits() && place.create != 0 && place.create < w.mutex.create {
			w.broken |= inOrder
		}
	}
	w.tokens(w.now)
}

// mutexWakes: its watch starts from the revision of what it read, and misses nothing.
func (w *world) mutexWakes() bool {
	m := &w.mutex
	if m.phase != blocked || m.event == 0 {
		return false
	}
	m.phase, m.event, m.before = listing, 0, nothing
	return w.say(mutex, "@'s watch tells that a key was deleted")
}

func (w *world) mutexFinishes() bool {
	if w.mutex.phase != working {
		return false
	}
	w.mutex.phase = releasing
	return w.say(mutex, "@'s work ends; deletes its key")
}

// mutexExpires: a Mutex that crashed leaves a key, until its lease runs out.
func (w *world) mutexExpires() bool {
	if w.mutex.phase != crashed || w.keys[mutex].create == 0 {
		return false
	}
	w.now++
	w.remove(mutex)
	return w.say(mutex, "@'s lease runs out")
}
