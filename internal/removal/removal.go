// Package removal takes out of the line what there is of a place, or passes the lock on, and looks
// for what appears later, as part of the machine of package protocol.
package removal

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/orphan"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// A Removal is a machine that removes what there is of its place.
type Removal struct{ *standing.Standing }

// Release gives the lock back. A transaction that is applied late does no harm: it compares with
// our token, and neither that nor our place ever comes again.
func (m Removal) Release() {
	switch m.State {
	case standing.Held:
		m.User = true
		m.UnwatchAll()
		m.Transition(standing.Leaving)
		m.Sure = m.Settled
		m.handOver()
	case standing.Lost: // a lease that is not shared takes along what is left, when it is revoked
		m.Do(message.Effect{Do: message.TellReleased, Confirmed: m.Shared, Reason: m.Lost})
		m.UnwatchAll()
		m.Clear()
	case standing.Leaving, standing.Unconfirmed, standing.Gone: // it was lost, and is being removed
		if !m.User {
			m.Do(message.Effect{Do: message.TellReleased, Confirmed: true, Reason: m.Lost})
		}
	default: // it is not held
	}
}

// GiveUp ends the wait, and takes back the place, and the lock if it was granted meanwhile.
func (m Removal) GiveUp(why message.End) {
	if m.Orphan { // an earlier try may have won, and K be older than the place
		m.Pos.Create = 0
		m.Doubt()
	}
	m.Over(why)
	m.UnwatchAll()
	m.Clear()
}

// Clear removes what there is of the place. A lease that serves nothing else takes it along: then
// only a lock that can be passed on is.
func (m Removal) Clear() {
	m.Transition(standing.Leaving)
	m.Sure = m.Settled
	switch {
	case m.NoLease:
		m.Vanish()
	case m.Token+m.Turn != 0 && (m.Shared || m.Lost == message.NotLost):
		m.handOver()
	case m.Pos.Unsure && m.Shared && !m.Settled:
		m.track()
	case m.Pos.Unsure && m.Shared:
		m.Read()
	case m.Pos.Create == 0, !m.Shared && (m.Pos.Unsure || m.Lost != message.NotLost || m.Ended >= message.Uncertain):
		m.Vanish()
	default:
		r := message.Request{Name: message.Leave, Rev: m.Pos.Create, Tail: m.Named()}
		if m.Linked { // the tail does not name the others
			r.Before = m.Pos.Ahead.Link
		}
		m.Send(r)
	}
}

// handOver passes the lock on to the successor, if one is known, else gives it back.
func (m Removal) handOver() {
	r := message.Request{Name: message.GiveBack, Rev: max(m.Token, m.Turn), Tail: m.Named()}
	if next, ok := m.Successor(); ok {
		r = message.Request{Name: message.Pass, Rev: r.Rev, Next: next}
	}
	if m.Shares {
		r.Rev = m.Pos.Create
	}
	m.Send(r)
}

func (m Removal) Answer(a message.Answer) {
	if a.Outcome == message.Denied && m.Request.Tail && m.Request.Before.Place == "" {
		// Whoever may not write the tail deletes the rest, and the tail when it may be written.
		m.Orphan, m.Request.Tail = true, false
		m.Unclear = m.Unclear || a.Repeated
		m.Send(m.Request)
		return
	}
	switch m.Request.Name {
	case message.Pass, message.GiveBack:
		m.handedOver(a)
	case message.LeaveLost:
		m.leftLost(a)
	case message.Leave:
		m.left(a)
	case message.ReadState:
		if a.Outcome != message.Applied {
			m.later()
			return
		}
		m.removeAs(a.Keys)
	case message.Remove:
		switch {
		case a.Outcome == message.Applied && !a.Repeated:
			m.cleared()
		case a.Outcome == message.Applied, a.Outcome == message.Refused:
			m.Read()
		default:
			m.later()
		}
	default:
		m.orphanAnswer(a)
	}
}

// handedOver takes the answer to a pass or a release.
func (m Removal) handedOver(a message.Answer) {
	m.Unclear = m.Unclear || a.Repeated || a.Outcome == message.NoSpace
	switch passes := m.Request.Name == message.Pass; {
	case a.Outcome == message.Applied:
		m.released(true, message.NotLost)
		m.cleared()
	case passes && a.Outcome != message.Unknown && a.Outcome != message.Rejected:
		// We may not be allowed to write under the successor's lease, which may have other keys.
		// Where etcd has no space it deletes all the same.
		m.Stray = m.Stray || a.Outcome == message.NoSpace
		m.Pos.Next = message.Successor{Joined: m.Pos.Next.Joined}
		m.handOver()
	case a.Outcome == message.Refused && m.User:
		m.Send(message.Request{Name: message.LeaveLost, Tail: m.Named()})
	case a.Outcome == message.Refused:
		m.Read()
	default:
		m.released(false, m.Lost)
		m.later()
	}
}

// leftLost takes the answer to the removal of a place whose release was refused. If an earlier try
// was applied, and its answer lost, nothing is there; or of the removal, the place is not. Then K
// tells: as it was not deleted since it became ours, nobody else can have it.
func (m Removal) leftLost(a message.Answer) {
	if a.Outcome != message.Applied {
		m.released(false, message.NotLost)
		m.later()
		return
	}
	reason, lock := message.NotLost, a.Keys.Lock
	switch isThere := a.Keys.Place.Exists() && a.Keys.Place.Create == m.Pos.Create; {
	case !isThere && m.Unclear:
	case !isThere && a.Repeated && lock.Exists() && lock.Create <= m.Token:
		reason = message.KeyOverwritten
	default:
		reason = m.Pos.Compare(a.Keys, m.Token)
	}
	m.Overwritten(reason, a.Keys)
	m.Orphan = m.Orphan || m.IsOwn(lock)
	m.released(true, reason)
	m.cleared()
}

// released says once how the release ended.
func (m Removal) released(confirmed bool, reason message.Reason) {
	if m.User {
		m.User, m.Given = false, confirmed && reason == message.NotLost
		m.Do(message.Effect{Do: message.TellReleased, Confirmed: confirmed, Reason: reason, Written: m.Written})
	}
}

// left takes the answer to a request to leave the line.
func (m Removal) left(a message.Answer) {
	switch {
	case a.Outcome == message.Applied:
		m.cleared()
	case a.Outcome == message.Refused:
		m.removeAs(a.Keys)
	// To delete may be allowed.
	case m.Request.Before.Place != "" && a.Outcome != message.Unknown:
		m.Request.Before = message.Link{}
		m.Send(m.Request)
	default:
		m.later()
	}
}

// removeAs removes a place as it was found: as a holder does if the lock was granted to it, else as
// it is.
func (m Removal) removeAs(k message.Keys) {
	own := k.Place
	switch {
	case !own.Exists(), m.Given && !m.Strays() && own.Create != m.Pos.Create:
		m.forgetSeat()
		m.removeOrphans() // gone, or the next one's: only after a release it has the same name
	case m.Kind > message.Plain && own.Seat != m.Seat: // it is K that was not read, or its slot
		m.Seat = own.Seat
		m.Read()
	case k.Holds(), m.Seat > 0 && own.Seat == m.Seat && k.Lock.Mod == own.Mod:
		m.Token, m.Pos.Create, m.Pos.Unsure = own.Mod, own.Create, false
		m.handOver()
	default:
		// Whoever has overwritten it may have done so after the lock was granted to it.
		m.Orphan = m.Orphan || own.Mod != own.Create || m.IsOwn(k.Lock) || m.Tried > 0
		m.forgetSeat()
		m.Send(message.Request{Name: message.Remove, Rev: own.Mod, Tail: m.Named()})
	}
}

// forgetSeat has the search for what is left begin with K, and go on with the slot.
func (m Removal) forgetSeat() { m.Seat, m.Tried = 0, max(m.Seat, m.Tried) }

// Read reads what there is.
func (m Removal) Read() {
	m.Send(message.Request{Name: message.ReadState})
}

// removeOrphans deletes what somebody who deleted our place has left, as package orphan says. The
// lease serves others, and would keep it.
func (m Removal) removeOrphans() {
	m.Orphan = false
	if !m.Shared || m.Shares {
		m.cleared()
		return
	}
	m.Send(orphan.Of(m.Config, m.Pos.Create).First())
}

func (m Removal) orphanAnswer(a message.Answer) {
	switch next, more, failed := orphan.Of(m.Config, m.Pos.Create).Next(m.Request, a); {
	case failed:
		m.later()
	case more:
		m.Send(next)
	default:
		if m.Orphan = m.Seat == 0 && m.Tried > 0; m.Orphan { // K is gone, a slot may be there
			m.Seat = m.Tried
		} else {
			m.Seat = 0
		}
		m.cleared()
	}
}

// later tries again after some time, for as long as the lease lasts: it is renewed for others, so
// what is refused now must be asked for again. A lease that serves nothing else takes it along.
func (m Removal) later() {
	if !m.Shared || m.NoLease {
		m.Vanish()
		return
	}
	m.Paused, m.Asked = true, true
	m.Do(message.Effect{Do: message.Timer, Delay: message.Retry})
}

// cleared says that nothing was there. That is final if no request to join was under way when it
// was looked for.
func (m Removal) cleared() {
	switch {
	case m.Orphan && m.Shared && !m.NoLease:
		m.Orphan = false
		m.removeOrphans()
	case m.Sure, !m.Shared, m.NoLease:
		m.Vanish()
	case m.Again:
		m.Again, m.Sure = false, m.Settled
		m.Read()
	default:
		m.track()
	}
}

// track waits for what may appear.
func (m Removal) track() {
	m.Doubt()
	m.Again = false
	m.Transition(standing.Unconfirmed)
	m.Watch(message.OnPlace, m.Place, 0)
	m.Do(message.Effect{Do: message.Track})
}

// Recheck looks for the place after something was told.
func (m Removal) Recheck() {
	switch m.State {
	case standing.Leaving:
		m.Again = true
	case standing.Unconfirmed:
		m.Transition(standing.Leaving)
		m.Sure = m.Settled
		m.Read()
	default:
	}
}

// Vanish ends the machine.
func (m Removal) Vanish() {
	if m.State == standing.Gone {
		return
	}
	m.released(false, m.Lost)
	m.UnwatchAll()
	m.Transition(standing.Gone)
	m.Do(message.Effect{Do: message.TellGone})
}
