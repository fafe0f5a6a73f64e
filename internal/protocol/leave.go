package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/orphan"
)

// leaving is a machine that removes what there is of its place.
type leaving struct{ *Machine }

// release gives the lock back. A transaction that is applied late does no harm: it compares with
// our token, and neither that nor our place ever comes again.
func (m leaving) release() {
	switch m.state {
	case Held:
		m.user = true
		m.unwatchAll()
		m.transition(Leaving)
		m.sure = m.settled
		m.handOver()
	case Lost: // a lease that is not shared takes along what is left, when it is revoked
		m.do(message.Effect{Do: message.TellReleased, Confirmed: m.Shared, Reason: m.lost})
		m.unwatchAll()
		m.clear()
	case Leaving, Unconfirmed, Gone: // it was lost, and is being removed
		if !m.user {
			m.do(message.Effect{Do: message.TellReleased, Confirmed: true, Reason: m.lost})
		}
	default: // it is not held
	}
}

// giveUp ends the wait, and takes back the place, and the lock if it was granted meanwhile.
func (m leaving) giveUp(why message.End) {
	if m.orphan { // an earlier try may have won, and K be older than the place
		m.pos.Create = 0
		m.unsure()
	}
	m.over(why)
	m.unwatchAll()
	m.clear()
}

// clear removes what there is of the place. A lease that serves nothing else takes it along: then
// only a lock that can be passed on is.
func (m leaving) clear() {
	m.transition(Leaving)
	m.sure = m.settled
	switch {
	case m.noLease:
		m.vanish()
	case m.token != 0 && (m.Shared || m.lost == message.NotLost):
		m.handOver()
	case m.pos.Unsure && m.Shared && !m.settled:
		m.track()
	case m.pos.Unsure && m.Shared:
		m.read()
	case m.pos.Create == 0, !m.Shared && (m.pos.Unsure || m.lost != message.NotLost || m.end >= message.Uncertain):
		m.vanish()
	default:
		r := message.Request{Name: message.Leave, Rev: m.pos.Create, Tail: m.named()}
		if m.Linked { // the tail does not name the others
			r.Before = m.pos.Ahead.Link
		}
		m.send(r)
	}
}

// handOver passes the lock on to the successor, if one is known, else gives it back.
func (m leaving) handOver() {
	r := message.Request{Name: message.GiveBack, Rev: m.token, Tail: m.named()}
	if next, ok := m.Successor(); ok {
		r = message.Request{Name: message.Pass, Rev: m.token, Next: next}
	}
	if m.Shares {
		r.Rev = m.pos.Create
	}
	m.send(r)
}

func (m leaving) leaveAnswer(a message.Answer) {
	if a.Outcome == message.Denied && m.request.Tail && m.request.Before.Place == "" {
		// Whoever may not write the tail deletes the rest, and the tail when it may be written.
		m.orphan, m.request.Tail = true, false
		m.unclear = m.unclear || a.Repeated
		m.send(m.request)
		return
	}
	switch m.request.Name {
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
			m.read()
		default:
			m.later()
		}
	default:
		m.orphanAnswer(a)
	}
}

// handedOver takes the answer to a pass or a release.
func (m leaving) handedOver(a message.Answer) {
	m.unclear = m.unclear || a.Repeated || a.Outcome == message.NoSpace
	switch passes := m.request.Name == message.Pass; {
	case a.Outcome == message.Applied:
		m.released(true, message.NotLost)
		m.cleared()
	case passes && a.Outcome != message.Unknown && a.Outcome != message.Rejected:
		// We may not be allowed to write under the successor's lease, which may have other keys.
		// Where etcd has no space it deletes all the same.
		m.strays = m.strays || a.Outcome == message.NoSpace
		m.pos.Next = message.Successor{Joined: m.pos.Next.Joined}
		m.handOver()
	case a.Outcome == message.Refused && m.user:
		m.send(message.Request{Name: message.LeaveLost, Tail: m.named()})
	case a.Outcome == message.Refused:
		m.read()
	default:
		m.released(false, m.lost)
		m.later()
	}
}

// leftLost takes the answer to the removal of a place whose release was refused. If an earlier try
// was applied, and its answer lost, nothing is there.
func (m leaving) leftLost(a message.Answer) {
	if a.Outcome != message.Applied {
		m.released(false, message.NotLost)
		m.later()
		return
	}
	reason := message.NotLost
	if !m.unclear || a.Keys.Place.Exists() && a.Keys.Place.Create == m.pos.Create {
		reason = m.pos.Compare(a.Keys, m.token)
	}
	m.orphan = m.orphan || m.IsOwn(a.Keys.Lock)
	m.released(true, reason)
	m.cleared()
}

// released says once how the release ended.
func (m leaving) released(confirmed bool, reason message.Reason) {
	if m.user {
		m.user, m.given = false, confirmed && reason == message.NotLost
		m.do(message.Effect{Do: message.TellReleased, Confirmed: confirmed, Reason: reason})
	}
}

// left takes the answer to a request to leave the line.
func (m leaving) left(a message.Answer) {
	switch {
	case a.Outcome == message.Applied:
		m.cleared()
	case a.Outcome == message.Refused:
		m.removeAs(a.Keys)
	// To delete may be allowed.
	case m.request.Before.Place != "" && a.Outcome != message.Unknown:
		m.request.Before = message.Link{}
		m.send(m.request)
	default:
		m.later()
	}
}

// removeAs removes a place as it was found: as a holder does if the lock was granted to it, else as
// it is.
func (m leaving) removeAs(k message.Keys) {
	own := k.Place
	switch {
	case !own.Exists(), m.given && !m.Strays() && own.Create != m.pos.Create:
		m.removeOrphans() // gone, or the next one's: only after a release it has the same name
	case k.Holds():
		m.token, m.pos.Create, m.pos.Unsure = own.Mod, own.Create, false
		m.handOver()
	default:
		// Whoever has overwritten it may have done so after the lock was granted to it.
		m.orphan = m.orphan || own.Mod != own.Create || m.IsOwn(k.Lock)
		m.send(message.Request{Name: message.Remove, Rev: own.Mod, Tail: m.named()})
	}
}

// read reads what there is.
func (m leaving) read() {
	m.send(message.Request{Name: message.ReadState})
}

// removeOrphans deletes what somebody who deleted our place has left, as package orphan says. The
// lease serves others, and would keep it.
func (m leaving) removeOrphans() {
	m.orphan = false
	if !m.Shared || m.Shares {
		m.cleared()
		return
	}
	m.send(orphan.Of(m.Config, m.pos.Create).First())
}

func (m leaving) orphanAnswer(a message.Answer) {
	switch next, more, failed := orphan.Of(m.Config, m.pos.Create).Next(m.request, a); {
	case failed:
		m.later()
	case more:
		m.send(next)
	default:
		m.cleared()
	}
}

// later tries again after some time, for as long as the lease lasts: it is renewed for others, so
// what is refused now must be asked for again. A lease that serves nothing else takes it along.
func (m leaving) later() {
	if !m.Shared || m.noLease {
		m.vanish()
		return
	}
	m.paused, m.asked = true, true
	m.do(message.Effect{Do: message.Timer, Delay: message.Retry})
}

// cleared says that nothing was there. That is final if no request to join was under way when it
// was looked for.
func (m leaving) cleared() {
	switch {
	case m.orphan && m.Shared && !m.noLease:
		m.orphan = false
		m.removeOrphans()
	case m.sure, !m.Shared, m.noLease:
		m.vanish()
	case m.again:
		m.again, m.sure = false, m.settled
		m.read()
	default:
		m.track()
	}
}

// track waits for what may appear.
func (m leaving) track() {
	m.unsure()
	m.again = false
	m.transition(Unconfirmed)
	m.watch(message.OnPlace, m.Place, 0)
	m.do(message.Effect{Do: message.Track})
}

// recheck looks for the place after something was told.
func (m leaving) recheck() {
	switch m.state {
	case Leaving:
		m.again = true
	case Unconfirmed:
		m.transition(Leaving)
		m.sure = m.settled
		m.read()
	default:
	}
}

// vanish ends the machine.
func (m leaving) vanish() {
	if m.state == Gone {
		return
	}
	m.released(false, m.lost)
	m.unwatchAll()
	m.transition(Gone)
	m.do(message.Effect{Do: message.TellGone})
}
