package protocol

// hearing is a machine that draws conclusions from what watches and reads tell.
type hearing struct{ *Machine }

func (m hearing) watching(w Watching) {
	if m.state >= Leaving {
		leaving(m).recheck()
		return
	}
	m.catchUp(m.pos.created(w))
}

func (m hearing) catchUp(read, missedTail bool) {
	if missedTail {
		m.rewatchTail()
	}
	m.forgetTail()
	if read {
		m.do(Effect{Do: Observe})
	}
}

func (m hearing) forgetTail() {
	if m.pos.next.Joined != 0 {
		m.unwatch(OnTail)
	}
}

func (m hearing) rewatchTail() {
	m.unwatch(OnTail)
	m.pos.changes, m.pos.tailSince = nil, 0
	m.watch(OnTail, "", m.pos.create+1)
}

func (m hearing) event(e Event) {
	switch {
	case m.state >= Leaving:
		if e.Of == OnPlace {
			leaving(m).recheck()
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
	waiting(m).reconsider()
}

func (m hearing) ownEvent(e Event) {
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

func (m hearing) observation(o Observation) {
	if m.state >= Leaving || m.pos.create <= 0 || o.Rev < max(m.pos.create, m.token) {
		return
	}
	if m.token == 0 {
		if o.Of != "" {
			m.pos.observeAhead(o.Of, o.Keys.Lock, o.Ahead)
		}
		m.pos.observe(o.Keys)
		waiting(m).reconsider()
		return
	}
	if reason := m.Compare(o.Keys); reason != NotLost {
		holding(m).lose(reason)
	}
}
