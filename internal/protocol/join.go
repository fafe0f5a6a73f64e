package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// joining is a machine that is about to get a place.
type joining struct{ *Machine }

// acquire begins. After a lock that was free the last time, and to try, the first request is half
// as long and, if refused, has written nothing.
func (m joining) acquire() {
	m.Transition(standing.Joining)
	if m.NoLease {
		m.nothingWritten(m.Pos.End)
		return
	}
	if m.Try || m.Lone || m.Kind > message.Plain {
		m.Settled = false
		m.ifFree(m.Slot)
		return
	}
	m.join()
}

// ifFree takes the lock if nobody is there, or, of a semaphore, a slot if nobody waits for one.
func (m joining) ifFree(slot int) {
	m.Tried = slot + 1
	m.Send(message.Request{Name: message.AcquireIfFree, Slot: slot})
}

// join takes the lock if nobody is there, else a place at the end of the line.
func (m joining) join() {
	m.Watch(message.OnPlace, m.Place, 0)
	if m.Linked {
		m.Watch(message.OnTail, "", 0)
	}
	m.Settled = false
	m.Send(message.Request{Name: message.AcquireOrJoin})
}

func (m joining) joinAnswer(a message.Answer) {
	switch m.Request.Name {
	case message.AcquireIfFree, message.AcquireOrJoin:
		m.joined(a)
	case message.ReadBusy:
		switch {
		case a.Outcome != message.Applied:
			m.readFailed(a)
		case m.Orphan && m.IsOwn(a.Keys.Lock):
			m.readWritten(a.Keys.Lock)
		case a.Some && !m.AsksKind:
			m.AsksKind = true
			m.Send(message.Request{Name: message.ReadKind})
		case a.Keys.Lock.Exists(), m.Kind > message.Plain && a.Free < 0:
			m.nothingWritten(message.Busy)
		case m.Shares, m.Kind > message.Plain: // whoever is there need not stand before us
			m.join()
		default:
			m.Send(message.Request{Name: message.ReadNewest})
		}
	case message.ReadKind:
		switch {
		case a.Outcome != message.Applied:
			m.readFailed(a)
		case m.IsOther(a.Kind):
			m.nothingWritten(message.OtherKind)
		default:
			m.Send(message.Request{Name: message.ReadBusy})
		}
	case message.ReadNewest:
		switch {
		case a.Outcome != message.Applied:
			m.readFailed(a)
		case a.Some:
			m.nothingWritten(message.Busy)
		case m.Cancelled:
			m.nothingWritten(message.Cancelled)
		default: // what is there is not a place in line
			m.join()
		}
	case message.ReadWritten:
		m.writtenRead(a)
	case message.ReadState:
		m.seatRead(a)
	}
}

// seatRead goes on if the place has the slot that it names.
func (m joining) seatRead(a message.Answer) {
	if first(m).sits(a) {
		m.Orphan = true
		m.entered(a.Keys.Place.Create, a.Keys.Place.Mod, false, a.Keys.Lock)
		return
	}
	m.Doubt()
	first(m).sitsNot(a)
}

// joined takes the answer to a request that creates the place.
func (m joining) joined(a message.Answer) {
	alone := m.Request.Name == message.AcquireIfFree
	switch {
	case a.Outcome == message.Applied: // nobody was there
		m.Sit(alone, m.Request.Slot+1)
		m.entered(a.Rev, a.Rev, false, message.KV{})
	case a.Outcome == message.Refused && a.Ours && m.Shares: // the line tells if it has the lock
		m.entered(a.Keys.Place.Create, 0, false, message.KV{})
	case a.Outcome == message.Refused && a.Ours && a.Keys.Place.Seat > 0 && m.Kind > message.Plain:
		first(m).readSeat(a.Keys.Place.Seat)
	case a.Outcome == message.Refused && a.Ours: // by an earlier try
		token := int64(0)
		m.Orphan = true
		if a.Keys.Holds() {
			token = a.Keys.Place.Mod
		}
		// If the lock was passed to it meanwhile, the tail names it all the same.
		create := a.Keys.Place.Create
		m.entered(create, token, !alone && m.Linked && token != create, a.Keys.Lock)
	case a.Outcome == message.Refused && a.Else:
		m.Pos.Ahead = a.Ahead
		m.Orphan = m.Orphan || a.Repeated && !m.Shares
		m.entered(a.Rev, 0, m.Linked, a.Keys.Lock)
	case a.Outcome == message.Refused && a.Repeated && !m.Orphan && !m.Shares && m.Kind == message.Plain:
		m.Orphan = true // an earlier try may have won, and somebody may have deleted its place
		m.joined(a)
	case a.Outcome == message.Refused && m.Cancelled:
		m.nothingWritten(message.Cancelled)
	case a.Outcome == message.Refused && alone && a.Repeated && m.Kind > message.Plain && m.IsOwn(a.Keys.Lock):
		m.Orphan, m.Seat = true, m.Request.Slot+1 // an earlier try may have won as well
		m.readWritten(a.Keys.Lock)
		m.Seat = 0
	case a.Outcome == message.Refused && alone && !a.Repeated && a.Free >= 0 && m.Kind > message.Plain && a.Free != m.Slot:
		m.Slot = a.Free
		m.ifFree(a.Free)
	case a.Outcome == message.Refused:
		m.notAlone()
	case a.Outcome == message.Unknown, a.Outcome == message.NoSpace:
		m.Doubt()
		m.leaving().GiveUp(m.EndOf(a))
	default:
		m.nothingWritten(m.EndOf(a))
	}
}

// entered says that the place was created, and with token that the lock was won; and what K is if
// it was not, which with orphan may be left from an earlier try.
func (m joining) entered(create, token int64, named bool, lock message.KV) {
	m.Pos.Named = named
	missedPlace, missedTail := m.Pos.Joined(create)
	hearing(m).catchUp(missedPlace, missedTail)
	m.Orphan = m.Orphan && token == 0 && m.IsOwn(lock)
	switch {
	case token != 0:
		holding(m).hold(token)
	case m.Orphan && !m.Cancelled:
		m.readWritten(lock)
	default:
		m.goOn()
	}
}

// goOn goes on from a place that does not hold the lock.
func (m joining) goOn() {
	switch {
	case m.Cancelled:
		m.leaving().GiveUp(message.Cancelled)
	case m.Pos.Ahead.Key != "":
		waiting(m).waitFor(m.Pos.Ahead)
	default:
		waiting(m).look(message.Ahead{}, false)
	}
}

// readWritten looks for the place for which K was written, or a slot. Without one it is an orphan:
// whoever deleted its place has left it, and to wait for it would be to wait for oneself.
func (m joining) readWritten(lock message.KV) {
	r := message.Request{Name: message.ReadWritten, Seat: m.Seat}
	r.Rev = r.Granted(lock)
	m.Send(r)
}

func (m joining) writtenRead(a message.Answer) {
	switch orphan := !a.Some && m.Request.Granted(a.Found) == m.Request.Rev; {
	case a.Outcome != message.Applied:
		m.readFailed(a)
	case orphan:
		m.leaving().GiveUp(message.Uncertain)
	case m.Pos.Create != 0:
		m.Orphan = false
		m.goOn()
	case m.Kind > message.Plain:
		m.Orphan = false
		m.notAlone()
	default:
		m.nothingWritten(message.Busy)
	}
}

// notAlone goes on when somebody is there.
func (m joining) notAlone() {
	switch {
	case m.Cancelled:
		m.nothingWritten(message.Cancelled)
	case m.Try:
		m.Send(message.Request{Name: message.ReadBusy})
	default:
		m.join()
	}
}

// nothingWritten ends a machine that has written nothing, as far as is known.
func (m joining) nothingWritten(why message.End) {
	if m.Stray || m.Orphan {
		m.Doubt()
		m.leaving().GiveUp(why)
		return
	}
	m.UnwatchAll()
	m.Over(why)
	m.Transition(standing.Gone)
	m.Do(message.Effect{Do: message.TellGone})
}

// readFailed ends the wait because of a read that failed: it has no outcome that could be unknown.
func (m joining) readFailed(a message.Answer) {
	why := m.EndOf(a)
	if m.State == standing.Joining {
		m.nothingWritten(why)
		return
	}
	m.leaving().GiveUp(why)
}
