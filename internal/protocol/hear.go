package protocol

import "github.com/etcdlock/etcdlock/internal/message"

// hearing is a machine that draws conclusions from what watches and reads tell.
type hearing struct{ *Machine }

func (m hearing) watching(w message.Watching) {
	if m.state >= Leaving {
		leaving(m).recheck()
		return
	}
	m.catchUp(m.pos.Created(w))
}

func (m hearing) catchUp(read, missedTail bool) {
	if missedTail {
		m.unwatch(message.OnTail)
		m.pos.Changes, m.pos.TailSince = nil, 0
		m.watch(message.OnTail, "", m.pos.Create+1)
	}
	m.forgetTail()
	if read {
		m.do(message.Effect{Do: message.Observe})
	}
}

func (m hearing) forgetTail() {
	if m.pos.Next.Joined != 0 {
		m.unwatch(message.OnTail)
	}
}

func (m hearing) event(e message.Event) {
	switch {
	case m.state >= Leaving:
		if e.Of == message.OnPlace {
			leaving(m).recheck()
		}
		return
	case e.Of == message.OnTail:
		if m.pos.Watches[message.OnTail] {
			if e.Link.Place == m.Place { // somebody has put the tail again
				e.Link = message.Link{}
			}
			m.pos.Follow(e)
			m.forgetTail()
		}
		return
	case m.token != 0: // only what made it so is no news
		if e.KV.Mod > m.token && (e.Of == message.OnLock || e.Of == message.OnPlace) {
			m.do(message.Effect{Do: message.Observe})
		}
		return
	case e.Of == message.OnAhead:
		m.pos.Passed(e)
	case e.Of == message.OnPlace && m.pos.Heard(e, m.Record):
		m.do(message.Effect{Do: message.Observe})
	}
	waiting(m).reconsider()
}

func (m hearing) observation(o message.Observation) {
	if m.state >= Leaving || m.pos.Create <= 0 || o.Rev < max(m.pos.Create, m.token) {
		return
	}
	if m.token == 0 {
		if o.Of != "" {
			m.pos.ObserveAhead(o.Of, o.Keys.Lock, o.Ahead)
		}
		m.pos.Observe(o.Keys)
		waiting(m).reconsider()
		return
	}
	if reason := m.pos.Compare(o.Keys, m.token); reason != message.NotLost {
		holding(m).lose(reason)
	}
}
