package protocol

import "github.com/etcdlock/etcdlock/internal/message"

// waiting is a machine that waits for its turn, or finds out whether it has come.
type waiting struct{ *Machine }

// waitFor waits until the lock is granted, or the predecessor is gone: its key absent, or created
// anew. (A Mutex that locks again does so under the same key, behind us. Whoever took that for the
// old one would wait for it, and it for us.)
func (m waiting) waitFor(ahead message.Ahead) {
	m.pos.Ahead, m.passing = ahead, false
	if m.Try {
		m.transition(Waiting)
		m.send(message.Request{Name: message.ReadBusy})
		return
	}
	m.transition(Waiting)
	m.unwatch(message.OnAhead)
	m.watch(message.OnAhead, ahead.Key, 0)
	if !m.waits {
		m.waits = true
		m.do(message.Effect{Do: message.TellWaiting})
	}
	m.reconsider()
}

// reconsider decides what to do after something was told. While a request is under way that waits
// for its answer.
func (m waiting) reconsider() {
	switch m.state {
	case Joining, Waiting, Looking, Claiming:
	default:
		return
	}
	token, granted := m.pos.Granted()
	if granted || m.pos.End != message.NotEnded {
		m.unpause()
	}
	if m.asked || m.pos.Create == 0 && !m.pos.Unsure {
		return
	}
	switch {
	case m.cancelled:
		leaving(m).giveUp(message.Cancelled)
	case granted:
		holding(m).hold(token)
	case m.pos.End != message.NotEnded:
		leaving(m).giveUp(m.pos.End)
	case m.state == Waiting:
		m.passedOver()
	// An earlier try has created the place, and nothing is known of the others.
	case m.state == Joining:
		m.look(message.Ahead{}, false)
	}
}

// passedOver goes on if the predecessor is gone. If it held the lock, the news that it passed the
// lock on may be on its way: the two are of one revision and of two watches. Whoever does not wait
// for it claims in vain.
func (m waiting) passedOver() {
	switch ahead := m.pos.Ahead; {
	case !ahead.Gone:
	case !ahead.Held, m.Shares: // nobody passes the lock to who shares it
		m.follow(ahead)
	case !m.passing:
		m.passing = true
		m.do(message.Effect{Do: message.Timer, Delay: message.InPassing})
	}
}

// elapsed says that the time of a Timer is over.
func (m *Machine) elapsed() {
	switch {
	case m.state == Waiting && m.passing && !m.asked:
		waiting{m}.follow(m.pos.Ahead)
	case m.state == Looking && m.paused:
		m.unpause()
		waiting{m}.lookFar()
	case m.state == Leaving && m.paused:
		m.unpause()
		leaving{m}.read()
	default: // what it was for is over
	}
}

// follow goes on behind a predecessor that is gone. If somebody left at its place, perhaps with
// many others, the history of the tail tells who stood before it. If not, it may be our turn.
func (m waiting) follow(gone message.Ahead) {
	m.unwatch(message.OnAhead)
	m.search.Crowd = false
	if gone.Left() {
		m.transition(Looking)
		m.search.Gone = gone
		m.goBack()
		return
	}
	m.claimBehind(gone)
}

// goBack asks the history who stood before the place that is gone.
func (m waiting) goBack() {
	if r, ok := m.search.Back(m.search.Gone); ok {
		m.send(r)
		return
	}
	m.backInVain()
}

// backInVain ends the search in the history.
func (m waiting) backInVain() {
	if m.pos.Ahead.Key == "" { // the line was read, and is long
		m.readFar()
		return
	}
	m.claimBehind(m.search.Gone)
}

// lookedBack takes the answer to a read of the history.
func (m waiting) lookedBack(a message.Answer) {
	found, r, ok := m.search.Next(a, m.pos.Create)
	switch {
	case found.Key != "":
		m.waitFor(found)
	case ok:
		m.send(r)
	default:
		m.backInVain()
	}
}

// claimBehind takes the lock if it is our turn. Gone is the predecessor that is gone, if one is
// known. The place directly behind a holder is next if no stranger is in line, and nobody who would
// share the lock: it need not have etcd go through the line. Whoever would share the lock reads it.
func (m waiting) claimBehind(gone message.Ahead) {
	m.search.Gone = gone
	switch {
	case gone.Held:
		m.transition(Claiming)
		m.claim(message.ClaimBehindHolder)
	case m.Shares:
		m.look(gone, m.search.Crowd)
	default:
		m.transition(Claiming)
		m.claim(message.Claim)
	}
}

// claim makes a claim. To repeat one whose outcome is unknown is safe: it requires the place as it
// was created, so after one of them was applied the others are refused, and the answer shows that
// the lock is ours.
func (m waiting) claim(name message.Name) {
	m.send(message.Request{Name: name, Rev: m.pos.Create})
}

// claimed takes the answer to a claim.
func (m waiting) claimed(a message.Answer) {
	if a.Outcome == message.Applied {
		holding(m).hold(a.Rev)
		return
	}
	if a.Outcome != message.Refused {
		leaving(m).giveUp(m.endOf(a))
		return
	}
	m.pos.Observe(a.Keys)
	m.reconsider()
	if m.state != Claiming || m.asked {
		return
	}
	switch {
	case m.request.Name == message.ClaimBehindHolder && !a.Keys.Lock.Exists() && !m.Shares:
		m.claim(message.Claim)
	case m.request.Name == message.ClaimOldest:
		m.look(message.Ahead{}, m.search.Crowd)
	default:
		m.look(m.search.Gone, m.search.Crowd)
	}
}

// look reads the line for what stands before the place: the newest older place, else K, else
// nothing. Gone is known to be gone.
func (m waiting) look(gone message.Ahead, crowd bool) {
	m.transition(Looking)
	m.search.Gone, m.search.Crowd = gone, crowd
	m.pos.Ahead = message.Ahead{}
	m.send(message.Request{Name: message.ReadLine, Rev: m.pos.Create})
}

// lookedAtLine takes the answer to a read of the line. In a long one the search begins behind what
// is gone, if that is known. A crowd that has done so in vain does not read it all at once.
func (m waiting) lookedAtLine(a message.Answer) {
	switch {
	case a.Whole:
		m.found(a.Ahead)
	case m.search.Crowd || m.search.Gone.Held:
		m.readFar()
	default:
		m.goBack()
	}
}

// readFar has etcd look for the newest older place in a long line, which costs it much.
func (m waiting) readFar() {
	if m.search.Crowd {
		m.paused, m.asked = true, true
		m.do(message.Effect{Do: message.Timer, Delay: message.Spread})
		return
	}
	m.lookFar()
}

func (m waiting) lookFar() {
	m.send(message.Request{Name: message.ReadFar, Rev: m.pos.Create})
}

// found goes on with what stands before the place, if anything does. If nothing does, nothing older
// can come any more.
func (m waiting) found(ahead message.Ahead) {
	if ahead.Key != "" {
		m.waitFor(ahead)
		return
	}
	m.transition(Claiming)
	m.claim(message.ClaimOldest)
}

func (m waiting) waitAnswer(a message.Answer) {
	switch m.request.Name {
	case message.ClaimBehindHolder, message.Claim, message.ClaimOldest:
		m.claimed(a)
		return
	case message.ReadHistory, message.ReadLine, message.ReadFar:
		if m.reconsider(); m.state != Looking || m.asked {
			return
		}
	}
	switch forgotten := a.Outcome == message.Rejected || a.Outcome == message.Denied; {
	case m.request.Name == message.ReadHistory && forgotten:
		m.search.Crowd = true
		m.backInVain()
	case a.Outcome != message.Applied:
		joining(m).readFailed(a)
	case m.request.Name == message.ReadBusy:
		leaving(m).giveUp(message.Busy)
	case m.request.Name == message.ReadHistory:
		m.lookedBack(a)
	case m.request.Name == message.ReadLine:
		m.lookedAtLine(a)
	case m.request.Name == message.ReadFar:
		m.found(a.Ahead)
	}
}
