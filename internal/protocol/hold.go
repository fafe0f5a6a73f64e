package protocol

// holding is a machine that has the lock, or has lost it.
type holding struct{ *Machine }

func (m holding) hold(token int64) {
	m.token = token
	m.unwatch(OnAhead)
	if m.cancelled {
		leaving(m).giveUp(Cancelled)
		return
	}
	m.transition(Held, noStep)
	m.do(Effect{Do: TellHeld, Token: token})
	if m.lasting {
		m.watchHeld()
	}
}

func (m holding) watchHeld() {
	if m.expired {
		return
	}
	m.watch(OnLock, m.Lock, 0)
	m.watch(OnPlace, m.Place, 0)
	if m.pos.next.Joined == 0 && m.Linked {
		m.watch(OnTail, "", m.pos.create+1)
	}
}

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

func (m holding) lose(reason Reason) {
	switch m.state {
	case Held:
		m.lost = reason
		m.transition(Lost, noStep)
		m.do(Effect{Do: TellLost, Reason: reason})
	case Lost:
	default:
		return
	}
	m.taken = m.taken || reason == PlaceLost
	if reason.Forced() {
		m.expire()
		if reason == PlaceLost && m.Shared {
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
	m.do(Effect{Do: TellExpired})
}
