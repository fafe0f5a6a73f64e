package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// holding is a machine that has the lock, or has lost it.
type holding struct{ *Machine }

// hold takes note that a revision made us the holder, or the next to have a slot.
func (m holding) hold(token int64) {
	if m.Kind > message.Plain && m.Seat == 0 {
		first(m).begin(token)
		return
	}
	m.Token = token
	m.Unwatch(message.OnAhead)
	m.Unwatch(message.OnSlots)
	if m.Cancelled {
		m.leaving().GiveUp(message.Cancelled)
		return
	}
	m.Transition(standing.Held)
	m.Do(message.Effect{Do: message.TellHeld, Token: token})
}

func (m holding) watchHeld() {
	if m.Expired {
		return
	}
	if !m.Shares { // then K is not ours
		m.Watch(message.OnLock, "", 0)
	}
	m.Watch(message.OnPlace, m.Place, 0)
	if m.Pos.Next.Joined == 0 && m.Linked && m.Seat == 0 {
		m.Watch(message.OnTail, "", m.Pos.Create+1)
	}
}

func (m holding) lose(reason message.Reason) {
	switch m.State {
	case standing.Held:
		m.Lost = reason
		m.Transition(standing.Lost)
		m.Do(message.Effect{Do: message.TellLost, Reason: reason, Written: m.Written})
	case standing.Lost:
	default:
		return
	}
	m.Taken = m.Taken || reason == message.PlaceLost
	if reason.Forced() {
		m.expire()
		if reason == message.PlaceLost && m.Shared {
			m.leaving().Clear()
		}
	}
}

func (m holding) expire() {
	if m.State != standing.Lost || m.Expired {
		return
	}
	m.Expired = true
	m.UnwatchAll()
	m.Do(message.Effect{Do: message.TellExpired})
}
