package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// first is a machine that is next to have a slot of a semaphore: K is its own.
type first struct{ *Machine }

// begin takes note that K became ours in a revision, and asks for a slot.
func (m first) begin(turn int64) {
	m.Turn, m.Pos.Asks = turn, true
	m.Unwatch(message.OnAhead)
	if m.Cancelled {
		m.leaving().GiveUp(message.Cancelled)
		return
	}
	m.Transition(standing.First)
	if m.Try {
		m.take()
		return
	}
	m.Watch(message.OnSlots, "", 0)
}

// take takes a slot, and passes K on.
func (m first) take() {
	r := message.Request{Name: message.TakeSlot, Rev: m.Turn, Slot: m.Slot, Tail: m.Named()}
	r.Next, _ = m.Successor()
	m.Poked, m.Tried = false, m.Slot+1
	m.Send(r)
}

// poke has a slot asked for again: one may be free, or K not ours any more. The answer tells.
func (m first) poke() {
	if m.Poked = m.State == standing.First; m.Poked {
		m.reconsider()
	}
}

func (m first) reconsider() {
	switch {
	case m.Asked:
	case m.Cancelled:
		m.leaving().GiveUp(message.Cancelled)
	case m.Pos.End != message.NotEnded:
		m.leaving().GiveUp(m.Pos.End)
	case m.Poked:
		m.take()
	}
}

func (m first) answer(a message.Answer) {
	own := a.Keys.Place
	switch {
	case m.Request.Name == message.ReadBusy:
		m.leaving().GiveUp(message.Busy)
	case m.Request.Name == message.ReadState && m.sits(a):
		holding(m).hold(own.Mod)
	case m.Request.Name == message.ReadState:
		m.sitsNot(a)
	case a.Outcome == message.Applied:
		m.Seat = m.Request.Slot + 1
		holding(m).hold(a.Rev)
	case a.Outcome == message.Refused && m.Stray && own.Seat > 0 && own.Create == m.Pos.Create:
		m.readSeat(own.Seat)
	case a.Outcome == message.Refused:
		m.refused(a)
	case a.Outcome == message.Denied && m.Request.Next.Place != "": // as of a pass
		m.Pos.Next = message.Successor{Joined: m.Pos.Next.Joined}
		m.take()
	default:
		m.leaving().GiveUp(m.EndOf(a))
	}
}

// readSeat finds out whether the place has the slot that it names: an earlier try has taken that,
// and it may have been deleted since, and another place may have it.
func (m first) readSeat(seat int) {
	m.Sit(true, seat)
	m.Send(message.Request{Name: message.ReadState})
}

// sits reports whether it has it: both were written in one revision.
func (m first) sits(a message.Answer) bool {
	slot, own := a.Keys.Lock, a.Keys.Place
	return a.Outcome == message.Applied && own.Exists() && own.Seat == m.Seat && own.Lease == m.Lease && own.Mod == slot.Mod
}

// sitsNot ends the wait of who does not have it, or cannot find that out.
func (m first) sitsNot(a message.Answer) {
	if a.Outcome == message.Applied {
		a.Outcome = message.Unknown // what has become of the earlier try is not known
	}
	m.Seat = 0
	m.leaving().GiveUp(m.EndOf(a))
}

// refused goes on when the slot that was asked for was not free, or K not ours any more.
func (m first) refused(a message.Answer) {
	m.Pos.Observe(a.Keys)
	switch {
	case m.Cancelled || m.Pos.End != message.NotEnded:
	case !a.Keys.Holds() || a.Keys.Lock.Mod != m.Turn:
		m.Pos.End = message.Overwritten
	case a.Free >= 0:
		m.Slot, m.Poked = a.Free, true
	case m.Try:
		m.Send(message.Request{Name: message.ReadBusy})
		return
	default:
		waiting(m).tell()
	}
	m.reconsider()
}
