package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// hearing is a machine that draws conclusions from what watches and reads tell.
type hearing struct{ *Machine }

func (m hearing) watching(w message.Watching) {
	switch {
	case m.State >= standing.Leaving:
		m.leaving().Recheck()
	case w.Of == message.OnSlots:
		first(m).poke()
	default:
		m.catchUp(m.Pos.Created(w))
	}
}

func (m hearing) catchUp(read, missedTail bool) {
	if missedTail {
		m.Unwatch(message.OnTail)
		m.Pos.Changes, m.Pos.TailSince = nil, 0
		m.Watch(message.OnTail, "", m.Pos.Create+1)
	}
	m.forgetTail()
	if read {
		m.Do(message.Effect{Do: message.Observe})
	}
}

func (m hearing) forgetTail() {
	if m.Pos.Next.Joined != 0 {
		m.Unwatch(message.OnTail)
	}
}

func (m hearing) event(e message.Event) {
	switch {
	case m.State >= standing.Leaving:
		if e.Of == message.OnPlace {
			m.leaving().Recheck()
		}
		return
	case e.Of == message.OnTail:
		if m.Pos.Watches[message.OnTail] {
			if e.Link.Place == m.Place { // somebody has put the tail again
				e.Link = message.Link{}
			}
			m.Pos.Follow(e)
			m.forgetTail()
		}
		return
	case m.Token != 0: // what made it so does not count
		if e.KV.Mod > m.Token && (e.Of == message.OnLock || e.Of == message.OnPlace) {
			m.Do(message.Effect{Do: message.Observe})
		}
		return
	case e.Of == message.OnSlots:
		if e.Deleted {
			m.Slot = max(e.Slot, 0)
			first(m).poke()
		}
	case e.Of == message.OnAhead:
		m.Pos.Passed(e)
	case e.Of == message.OnPlace && m.Pos.Heard(e, m.Record):
		m.Do(message.Effect{Do: message.Observe})
	}
	waiting(m).reconsider()
}

func (m hearing) observation(o message.Observation) {
	if m.State >= standing.Leaving || m.Pos.Create <= 0 || o.Rev < max(m.Pos.Create, m.Token) {
		return
	}
	if m.Seat != o.Seat {
		return
	}
	if m.Token == 0 {
		if o.Of != "" {
			m.Pos.ObserveAhead(o.Of, o.Keys.Lock, o.Ahead)
		}
		m.Pos.Observe(o.Keys)
		first(m).poke()
		waiting(m).reconsider()
		return
	}
	if reason := m.Pos.Compare(o.Keys, m.Token); reason != message.NotLost {
		m.Overwritten(reason, o.Keys)
		holding(m).lose(reason)
	}
}
