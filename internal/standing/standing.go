// Package standing is what a contender's machine knows of itself while it has a place in line, and
// the ways in which it asks for something. Packages protocol and removal decide what.
package standing

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/position"
)

// A Standing is a machine's state, and all that it remembers. It is a value: a copy is another
// machine in the same state.
type Standing struct {
	message.Config
	State State
	Pos   position.Position
	Token int64 // the revision that made us the holder; 0 while that has not happened
	Turn  int64 // of a semaphore: the revision in which K, the right to be next, became ours
	Seat  int   // of a semaphore: 1 is slot 0; 0 before it has a slot

	Asked     bool // a request is under way, or a pause
	Paused    bool // that is a pause
	Cancelled bool // by the caller, while a request was under way
	Stray     bool // a request that names the place may still be on its way
	Settled   bool // all requests to join have been answered
	Waits     bool // TellWaiting was said
	Passing   bool // the time for the news of a pass is running, or over
	Expired   bool // TellExpired was said
	Taken     bool // somebody has deleted or written the place while the lock was ours
	NoLease   bool // the lease is useless, and takes along what is left
	Again     bool // something was told while the place was being removed
	Orphan    bool // K may be left without a place
	Sure      bool // no request to join was under way when the removal began
	Unclear   bool // an earlier try of the release may have been applied
	User      bool // TellReleased is owed
	Given     bool // the lock was given back, and that is confirmed
	AsksKind  bool // it was asked which kind the line is of
	Poked     bool // while it was asked for a slot, something was told
	Tried     int  // the last slot that was asked for, as a seat
	Ended     message.End
	Lost      message.Reason
	Written   string // over K, a slot or the place, by whoever asks to stop

	Request message.Request // the last one that was sent

	Search position.Search
	Out    []message.Effect // during a step
}

// Strays reports whether a request that names the place may still be on its way, or it is not known
// what became of it: then the name must not be used again.
func (m *Standing) Strays() bool { return m.Stray || m.Pos.Unsure || !m.Settled }

// Successor returns who joined next. It is not ok if that is not known.
func (m *Standing) Successor() (next message.Successor, ok bool) {
	return m.Pos.Next, m.Pos.Next.Place != "" && m.Seat == 0
}

// Doubt says that it is not known whether the place is there, and whether the tail names it.
func (m *Standing) Doubt() { m.Pos.Unsure, m.Pos.Named = true, m.Linked }

// Named reports whether the tail may name the place: a request to join that comes late puts both,
// if somebody has deleted the place.
func (m *Standing) Named() bool { return m.Pos.Named || m.Linked && m.Strays() }

// Do adds an effect.
func (m *Standing) Do(e message.Effect) { m.Out = append(m.Out, e) }

// Send asks for a request.
func (m *Standing) Send(r message.Request) {
	r.Seat = m.Seat
	m.Asked, m.Paused, m.Request = true, false, r
	m.Do(message.Effect{Do: message.Send, Request: r})
}

// Unpause ends a pause.
func (m *Standing) Unpause() {
	if m.Paused {
		m.Paused, m.Asked = false, false
	}
}

// Watch begins to watch a key, unless that is done already.
func (m *Standing) Watch(of message.Watched, key string, from int64) {
	if m.Pos.Watch(of, from) {
		m.Do(message.Effect{Do: message.Watch, Of: of, Key: key, From: from})
	}
}

func (m *Standing) Unwatch(of message.Watched) {
	if m.Pos.Unwatch(of) {
		m.Do(message.Effect{Do: message.Unwatch, Of: of})
	}
}

func (m *Standing) UnwatchAll() {
	for of := range message.Watchers {
		m.Unwatch(of)
	}
}

// EndOf returns why a request that failed ends the wait.
func (m *Standing) EndOf(a message.Answer) message.End {
	switch {
	case m.Pos.End != message.NotEnded:
		return m.Pos.End
	case m.Cancelled: // that is why the outcome is unknown, if it is
		return message.Cancelled
	}
	return a.Outcome.End()
}

// Over says once why the place will not get the lock.
func (m *Standing) Over(why message.End) {
	if m.Ended != message.NotEnded {
		return
	}
	m.Ended = why
	if why == message.Busy {
		m.Do(message.Effect{Do: message.TellBusy})
		return
	}
	m.Do(message.Effect{Do: message.TellEnd, End: why})
}

// Sit takes note of the slot that the place has, if that is known.
func (m *Standing) Sit(known bool, seat int) {
	if known && m.Kind > message.Plain {
		m.Seat = seat
		m.Tried = max(seat, m.Tried)
	}
}

// IsOther reports whether the oldest place in line is of another kind.
func (m *Standing) IsOther(kind message.Kind) bool {
	return kind != m.Kind && kind != message.Stranger
}

// Overwritten takes note of what was written over a lock that was lost by that, for its user.
func (m *Standing) Overwritten(reason message.Reason, k message.Keys) {
	if reason == message.KeyOverwritten && m.Written == "" {
		m.Written = m.Pos.Overwriting(k)
	}
}
