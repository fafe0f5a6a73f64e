package protocol

import "github.com/etcdlock/etcdlock/internal/message"

// holding is a machine that has the lock, or has lost it.
type holding struct{ *Machine }

// hold takes note that a revision made us the holder.
func (m holding) hold(token int64) {
	m.token = token
	m.unwatch(message.OnAhead)
	if m.cancelled {
		leaving(m).giveUp(message.Cancelled)
		return
	}
	m.transition(Held)
	m.do(message.Effect{Do: message.TellHeld, Token: token})
	if m.lasting {
		m.watchHeld()
	}
}

func (m holding) watchHeld() {
	if m.expired {
		return
	}
	if !m.Shares { // then K is not ours
		m.watch(message.OnLock, m.Lock, 0)
	}
	m.watch(message.OnPlace, m.Place, 0)
	if m.pos.Next.Joined == 0 && m.Linked {
		m.watch(message.OnTail, "", m.pos.Create+1)
	}
}

func (m holding) lose(reason message.Reason) {
	switch m.state {
	case Held:
		m.lost = reason
		m.transition(Lost)
		m.do(message.Effect{Do: message.TellLost, Reason: reason})
	case Lost:
	default:
		return
	}
	m.taken = m.taken || reason == message.PlaceLost
	if reason.Forced() {
		m.expire()
		if reason == message.PlaceLost && m.Shared {
			leaving(m).clear()
		}
	}
}

func (m holding) expire() {
	if m.state != Lost || m.expired {
		return
	}
	m.expired = true
	m.unwatchAll()
	m.do(message.Effect{Do: message.TellExpired})
}
