package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// waiting is a machine that waits for its turn, or finds out whether it has come.
type waiting struct{ *Machine }

// waitFor waits until the lock is granted, or the predecessor is gone: its key absent, or created
// anew. (A Mutex that locks again does so under the same key, behind us. Whoever took that for the
// old one would wait for it, and it for us.)
func (m waiting) waitFor(ahead message.Ahead) {
	m.Pos.Ahead, m.Passing = ahead, false
	if ahead.Kind != m.Kind && ahead.Kind != message.Stranger && !m.AsksKind {
		m.AsksKind = true
		m.Transition(standing.Looking)
		m.Send(message.Request{Name: message.ReadKind})
		return
	}
	if m.Try {
		m.Transition(standing.Waiting)
		m.Send(message.Request{Name: message.ReadBusy})
		return
	}
	m.Transition(standing.Waiting)
	m.Unwatch(message.OnAhead)
	m.Watch(message.OnAhead, ahead.Key, 0)
	m.tell()
	m.reconsider()
}

// tell says once that the lock is waited for.
func (m waiting) tell() {
	if !m.Waits {
		m.Waits = true
		m.Do(message.Effect{Do: message.TellWaiting})
	}
}

// reconsider decides what to do after something was told. While a request is under way that waits
// for its answer.
func (m waiting) reconsider() {
	switch m.State {
	case standing.Joining, standing.Waiting, standing.Looking, standing.Claiming:
	case standing.First:
		first(m).reconsider()
		return
	default:
		return
	}
	token, granted := m.Pos.Granted()
	if granted || m.Pos.End != message.NotEnded {
		m.Unpause()
	}
	if m.Asked || m.Pos.Create == 0 && !m.Pos.Unsure {
		return
	}
	switch {
	case m.Cancelled:
		m.leaving().GiveUp(message.Cancelled)
	case granted:
		holding(m).hold(token)
	case m.Pos.End != message.NotEnded:
		m.leaving().GiveUp(m.Pos.End)
	case m.State == standing.Waiting:
		m.passedOver()
	// An earlier try has created the place, and nothing is known of the others.
	case m.State == standing.Joining:
		m.look(message.Ahead{}, false)
	}
}

// passedOver goes on if the predecessor is gone. If it held the lock, the news that it passed the
// lock on may be on its way: the two are of one revision and of two watches. Whoever does not wait
// for it claims in vain.
func (m waiting) passedOver() {
	switch ahead := m.Pos.Ahead; {
	case !ahead.Gone:
	case !ahead.Held, m.Shares: // nobody passes the lock to who shares it
		m.follow(ahead)
	case !m.Passing:
		m.Passing = true
		m.Do(message.Effect{Do: message.Timer, Delay: message.InPassing})
	}
}

// elapsed says that the time of a Timer is over.
func (m *Machine) elapsed() {
	switch {
	case m.State == standing.Waiting && m.Passing && !m.Asked:
		waiting{m}.follow(m.Pos.Ahead)
	case m.State == standing.Looking && m.Paused:
		m.Unpause()
		waiting{m}.lookFar()
	case m.State == standing.Leaving && m.Paused:
		m.Unpause()
		m.leaving().Read()
	default: // what it was for is over
	}
}

// follow goes on behind a predecessor that is gone. If somebody left at its place, perhaps with
// many others, the history of the tail tells who stood before it. If not, it may be our turn.
func (m waiting) follow(gone message.Ahead) {
	m.Unwatch(message.OnAhead)
	m.Search.Crowd = false
	if gone.Left() {
		m.Transition(standing.Looking)
		m.Search.Gone = gone
		m.goBack()
		return
	}
	m.claimBehind(gone)
}

// goBack asks the history who stood before the place that is gone.
func (m waiting) goBack() {
	if r, ok := m.Search.Back(m.Search.Gone); ok {
		m.Send(r)
		return
	}
	m.backInVain()
}

// backInVain ends the search in the history.
func (m waiting) backInVain() {
	if m.Pos.Ahead.Key == "" { // the line was read, and is long
		m.readFar()
		return
	}
	m.claimBehind(m.Search.Gone)
}

// lookedBack takes the answer to a read of the history.
func (m waiting) lookedBack(a message.Answer) {
	found, r, ok := m.Search.Next(a, m.Pos.Create, m.Kind)
	switch {
	case found.Key != "":
		m.waitFor(found)
	case ok:
		m.Send(r)
	default:
		m.backInVain()
	}
}

// claimBehind takes the lock if it is our turn. Gone is the predecessor that is gone, if one is
// known. The place directly behind a holder is next if no stranger is in line, and nobody who would
// share the lock: it need not have etcd go through the line. Whoever would share the lock reads it.
func (m waiting) claimBehind(gone message.Ahead) {
	m.Search.Gone = gone
	switch {
	case gone.Held:
		m.Transition(standing.Claiming)
		m.claim(message.ClaimBehindHolder)
	case m.Shares, m.Kind > message.Plain:
		m.look(gone, m.Search.Crowd)
	default:
		m.Transition(standing.Claiming)
		m.claim(message.Claim)
	}
}

// claim makes a claim. To repeat one whose outcome is unknown is safe: it requires the place as it
// was created, so after one of them was applied the others are refused, and the answer shows that
// the lock is ours.
func (m waiting) claim(name message.Name) {
	m.Send(message.Request{Name: name, Rev: m.Pos.Create})
}

// claimed takes the answer to a claim.
func (m waiting) claimed(a message.Answer) {
	if a.Outcome == message.Applied {
		holding(m).hold(a.Rev)
		return
	}
	if a.Outcome != message.Refused {
		m.leaving().GiveUp(m.EndOf(a))
		return
	}
	m.Pos.Observe(a.Keys)
	m.reconsider()
	if m.State != standing.Claiming || m.Asked {
		return
	}
	switch {
	case m.Request.Name == message.ClaimBehindHolder && !a.Keys.Lock.Exists() && !m.Shares && m.Kind == message.Plain:
		m.claim(message.Claim)
	case m.Request.Name == message.ClaimOldest:
		m.look(message.Ahead{}, m.Search.Crowd)
	default:
		m.look(m.Search.Gone, m.Search.Crowd)
	}
}

// look reads the line for what stands before the place: the newest older place, else K, else
// nothing. Gone is known to be gone.
func (m waiting) look(gone message.Ahead, crowd bool) {
	m.Transition(standing.Looking)
	m.Search.Gone, m.Search.Crowd = gone, crowd
	m.Pos.Ahead = message.Ahead{}
	m.Send(message.Request{Name: message.ReadLine, Rev: m.Pos.Create})
}

// lookedAtLine takes the answer to a read of the line. In a long one the search begins behind what
// is gone, if that is known. A crowd that has done so in vain does not read it all at once.
func (m waiting) lookedAtLine(a message.Answer) {
	switch {
	case a.Whole:
		m.found(a.Ahead)
	case m.Search.Crowd || m.Search.Gone.Held:
		m.readFar()
	default:
		m.goBack()
	}
}

// readFar has etcd look for the newest older place in a long line, which costs it much.
func (m waiting) readFar() {
	if m.Search.Crowd {
		m.Paused, m.Asked = true, true
		m.Do(message.Effect{Do: message.Timer, Delay: message.Spread})
		return
	}
	m.lookFar()
}

func (m waiting) lookFar() {
	m.Send(message.Request{Name: message.ReadFar, Rev: m.Pos.Create})
}

// found goes on with what stands before the place, if anything does. If nothing does, nothing older
// can come any more.
func (m waiting) found(ahead message.Ahead) {
	if ahead.Key != "" {
		m.waitFor(ahead)
		return
	}
	m.Transition(standing.Claiming)
	m.claim(message.ClaimOldest)
}

func (m waiting) waitAnswer(a message.Answer) {
	switch m.Request.Name {
	case message.ClaimBehindHolder, message.Claim, message.ClaimOldest:
		m.claimed(a)
		return
	case message.ReadHistory, message.ReadLine, message.ReadFar, message.ReadKind:
		if m.reconsider(); m.State != standing.Looking || m.Asked {
			return
		}
	}
	switch forgotten := a.Outcome == message.Rejected || a.Outcome == message.Denied; {
	case m.Request.Name == message.ReadHistory && forgotten:
		m.Search.Crowd = true
		m.backInVain()
	case a.Outcome != message.Applied:
		joining(m).readFailed(a)
	case m.Request.Name == message.ReadBusy:
		m.leaving().GiveUp(message.Busy)
	case m.Request.Name == message.ReadKind && m.IsOther(a.Kind):
		m.leaving().GiveUp(message.OtherKind)
	case m.Request.Name == message.ReadKind:
		m.waitFor(m.Pos.Ahead)
	case m.Request.Name == message.ReadHistory:
		m.lookedBack(a)
	case m.Request.Name == message.ReadLine:
		m.lookedAtLine(a)
	case m.Request.Name == message.ReadFar:
		m.found(a.Ahead)
	}
}
