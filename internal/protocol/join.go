package protocol

import "github.com/etcdlock/etcdlock/internal/message"

// joining is a machine that is about to get a place.
type joining struct{ *Machine }

// acquire begins. After a lock that was free the last time, and to try, the first request is half
// as long and, if refused, has written nothing.
func (m joining) acquire() {
	m.transition(Joining)
	if m.noLease {
		m.nothingWritten(m.pos.End)
		return
	}
	if m.Try || m.Lone {
		m.settled = false
		m.send(message.Request{Name: message.AcquireIfFree})
		return
	}
	m.join()
}

// join takes the lock if nobody is there, else a place at the end of the line.
func (m joining) join() {
	m.watch(message.OnPlace, m.Place, 0)
	if m.Linked {
		m.watch(message.OnTail, "", 0)
	}
	m.settled = false
	m.send(message.Request{Name: message.AcquireOrJoin})
}

func (m joining) joinAnswer(a message.Answer) {
	switch m.request.Name {
	case message.AcquireIfFree, message.AcquireOrJoin:
		m.joined(a)
	case message.ReadBusy:
		switch {
		case a.Outcome != message.Applied:
			m.readFailed(a)
		case m.orphan && m.IsOwn(a.Keys.Lock):
			m.readWritten(a.Keys.Lock)
		case a.Keys.Lock.Exists():
			m.nothingWritten(message.Busy)
		case m.Shares: // who is there may share it as well
			m.join()
		default:
			m.send(message.Request{Name: message.ReadNewest})
		}
	case message.ReadNewest:
		switch {
		case a.Outcome != message.Applied:
			m.readFailed(a)
		case a.Some:
			m.nothingWritten(message.Busy)
		case m.cancelled:
			m.nothingWritten(message.Cancelled)
		default: // what is there is not a place in line
			m.join()
		}
	case message.ReadWritten:
		m.writtenRead(a)
	}
}

// joined takes the answer to a request that creates the place.
func (m joining) joined(a message.Answer) {
	alone := m.request.Name == message.AcquireIfFree
	switch {
	case a.Outcome == message.Applied: // nobody was there
		m.entered(a.Rev, a.Rev, false, message.KV{})
	case a.Outcome == message.Refused && a.Ours && m.Shares: // the line tells if it has the lock
		m.entered(a.Keys.Place.Create, 0, false, message.KV{})
	case a.Outcome == message.Refused && a.Ours: // by an earlier try
		token := int64(0)
		m.orphan = true
		if a.Keys.Holds() {
			token = a.Keys.Place.Mod
		}
		// If the lock was passed to it meanwhile, the tail names it all the same.
		create := a.Keys.Place.Create
		m.entered(create, token, !alone && m.Linked && token != create, a.Keys.Lock)
	case a.Outcome == message.Refused && a.Else:
		m.pos.Ahead = a.Ahead
		m.orphan = m.orphan || a.Repeated && !m.Shares
		m.entered(a.Rev, 0, m.Linked, a.Keys.Lock)
	case a.Outcome == message.Refused && a.Repeated && !m.orphan && !m.Shares:
		m.orphan = true // an earlier try may have won, and somebody may have deleted its place
		m.joined(a)
	case a.Outcome == message.Refused && m.cancelled:
		m.nothingWritten(message.Cancelled)
	case a.Outcome == message.Refused && m.Try:
		m.send(message.Request{Name: message.ReadBusy})
	case a.Outcome == message.Refused:
		m.join()
	case a.Outcome == message.Unknown, a.Outcome == message.NoSpace:
		m.unsure()
		leaving(m).giveUp(m.endOf(a))
	default:
		m.nothingWritten(m.endOf(a))
	}
}

// entered says that the place was created, and with token that the lock was won; and what K is if
// it was not, which with orphan may be left from an earlier try.
func (m joining) entered(create, token int64, named bool, lock message.KV) {
	m.pos.Named = named
	missedPlace, missedTail := m.pos.Joined(create)
	hearing(m).catchUp(missedPlace, missedTail)
	m.orphan = m.orphan && token == 0 && m.IsOwn(lock)
	switch {
	case token != 0:
		holding(m).hold(token)
	case m.orphan && !m.cancelled:
		m.readWritten(lock)
	default:
		m.goOn()
	}
}

// goOn goes on from a place that does not hold the lock.
func (m joining) goOn() {
	switch {
	case m.cancelled:
		leaving(m).giveUp(message.Cancelled)
	case m.pos.Ahead.Key != "":
		waiting(m).waitFor(m.pos.Ahead)
	default:
		waiting(m).look(message.Ahead{}, false)
	}
}

// readWritten looks for the place for which K was written. Without one, K is an orphan: whoever
// deleted its place has left it, and to wait for it would be to wait for oneself.
func (m joining) readWritten(lock message.KV) {
	m.send(message.Request{Name: message.ReadWritten, Rev: lock.Mod})
}

func (m joining) writtenRead(a message.Answer) {
	switch orphan := !a.Some && a.Found.Mod == m.request.Rev; {
	case a.Outcome != message.Applied:
		m.readFailed(a)
	case orphan:
		leaving(m).giveUp(message.Uncertain)
	case m.pos.Create != 0:
		m.orphan = false
		m.goOn()
	default:
		m.nothingWritten(message.Busy)
	}
}

// nothingWritten ends a machine that has written nothing, as far as is known.
func (m joining) nothingWritten(why message.End) {
	if m.strays || m.orphan {
		m.unsure()
		leaving(m).giveUp(why)
		return
	}
	m.unwatchAll()
	m.over(why)
	m.transition(Gone)
	m.do(message.Effect{Do: message.TellGone})
}

// readFailed ends the wait because of a read that failed: it has no outcome that could be unknown.
func (m joining) readFailed(a message.Answer) {
	why := m.endOf(a)
	if m.state == Joining {
		m.nothingWritten(why)
		return
	}
	leaving(m).giveUp(why)
}
