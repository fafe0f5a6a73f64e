package protocol

// watchHeld watches what a holder has, and who comes next.
func (m *Machine) watchHeld() {
	if m.expired {
		return
	}
	m.watch(OnLock, m.Lock, 0)
	m.watch(OnPlace, m.Place, 0)
	if m.pos.next.Joined == 0 && m.Linked {
		m.watch(OnTail, "", m.pos.create+1)
	}
}

// watching takes note of a watch that was created. What came before that only a read shows.
func (m *Machine) watching(w Watching) {
	if m.state >= Leaving {
		m.recheck()
		return
	}
	m.catchUp(m.pos.created(w))
}

// catchUp has what the watches have missed read, or watched from an earlier revision on.
func (m *Machine) catchUp(read, missedTail bool) {
	if missedTail {
		m.rewatchTail()
	}
	m.forgetTail()
	if read {
		m.do(Effect{Do: Observe})
	}
}

// forgetTail ends the watch of the tail once it has told who is next: whoever joins later does not
// matter.
func (m *Machine) forgetTail() {
	if m.pos.next.Joined != 0 {
		m.unwatch(OnTail)
	}
}

// rewatchTail watches the tail from the revision on after which the place was created. That takes
// etcd up to 100 ms, and nobody waits for it.
func (m *Machine) rewatchTail() {
	m.unwatch(OnTail)
	m.pos.changes, m.pos.tailSince = nil, 0
	m.watch(OnTail, "", m.pos.create+1)
}

// event draws conclusions from what a watch has told. An event is a hint that something may be
// missing, and its absence says nothing.
func (m *Machine) event(e Event) {
	switch {
	case m.state >= Leaving:
		if e.Of == OnPlace {
			m.recheck()
		}
		return
	case e.Of == OnTail:
		if m.pos.watches[OnTail] {
			m.pos.follow(e)
			m.forgetTail()
		}
		return
	case m.token != 0: // only what made it so is no news
		if e.KV.Mod > m.token && (e.Of == OnLock || e.Of == OnPlace) {
			m.do(Effect{Do: Observe})
		}
		return
	case e.Of == OnAhead:
		m.pos.passed(e)
	case e.Of == OnPlace:
		m.ownEvent(e)
	}
	m.reconsider()
}

// ownEvent draws conclusions from an event of the place while it waits. Only a pass or a claim
// writes a place as it is. What creates it is our joining, or a late try of that when it is gone.
func (m *Machine) ownEvent(e Event) {
	switch {
	case !e.Deleted && e.KV.Create == e.KV.Mod:
		if m.pos.create > 0 && e.KV.Mod > m.pos.create {
			m.do(Effect{Do: Observe})
		}
	case !e.Deleted && e.KV.Lease == m.Lease && e.KV.Value == m.Record:
		m.pos.written = e.KV.Mod
	default:
		m.do(Effect{Do: Observe})
	}
}

// observation draws conclusions from a read of the state. One that was sent before the place or the
// token, and answered after, shows what was before.
func (m *Machine) observation(o Observation) {
	if m.state >= Leaving || m.pos.create <= 0 || o.Rev < max(m.pos.create, m.token) {
		return
	}
	if m.token == 0 {
		if o.Of != "" {
			m.pos.observeAhead(o.Of, o.Keys.Lock, o.Ahead)
		}
		m.pos.observe(o.Keys)
		m.reconsider()
		return
	}
	if reason := m.Compare(o.Keys); reason != NotLost {
		m.lose(reason)
	}
}

// Compare compares K and the holder's place with what they were when the lock was acquired: only
// an operator's hand or the end of the lease changes either.
func (m *Machine) Compare(k Keys) Reason {
	switch {
	case !k.Place.Exists() && !k.Lock.Exists():
		return LeaseGone
	case k.Place.Create != m.pos.create || k.Place.Mod != m.token:
		return PlaceLost
	case !k.Lock.Exists():
		return KeyDeleted
	case k.Lock.Mod != m.token:
		return KeyOverwritten
	}
	return NotLost
}

// lose says that the lock is lost. The first reason stays; a forced one ends validity as well.
// Where the lease serves others, what an operator has left of the place is removed.
func (m *Machine) lose(reason Reason) {
	switch m.state {
	case Held:
		m.lost = reason
		m.transition(Lost, noStep)
		m.do(Effect{Do: TellLost, Reason: reason})
	case Lost:
	default:
		return
	}
	if reason.Forced() {
		m.expire()
		if reason == PlaceLost && m.Shared {
			m.clear()
		}
	}
}

// expire says that the lock may be somebody else's.
func (m *Machine) expire() {
	if m.state != Lost || m.expired {
		return
	}
	m.expired = true
	m.unwatchAll()
	m.do(Effect{Do: TellExpired})
}
