package protocol

import (
	"slices"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/position"
)

// A State is what a machine is doing. The package comment has the drawing.
type State int

// The states.
const (
	Idle State = iota
	Joining
	Waiting
	Looking
	Claiming
	Held
	Lost
	Leaving
	Unconfirmed
	Gone
)

// String returns the name of the state.
func (s State) String() string {
	return [...]string{"idle", "joining", "waiting", "looking", "claiming", "held", "lost", "leaving", "unconfirmed", "gone"}[s]
}

// arrows are the changes of state that there are.
var arrows = map[State][]State{
	Idle:        {Joining},
	Joining:     {Held, Waiting, Looking, Leaving, Gone},
	Waiting:     {Held, Looking, Claiming, Leaving},
	Looking:     {Held, Waiting, Claiming, Leaving},
	Claiming:    {Held, Looking, Leaving},
	Held:        {Lost, Leaving},
	Lost:        {Leaving},
	Leaving:     {Unconfirmed, Gone},
	Unconfirmed: {Leaving, Gone},
}

// A Machine is one place in line. The zero Machine is not usable: see New. It is a value: a copy is
// another machine in the same state.
type Machine struct {
	message.Config
	state State
	pos   position.Position
	token int64 // the revision that made us the holder; 0 while that has not happened

	asked     bool // a request is under way, or a pause
	paused    bool // that is a pause
	cancelled bool // by the caller, while a request was under way
	strays    bool // a request that names the place may still be on its way
	settled   bool // all requests to join have been answered
	waits     bool // TellWaiting was said
	passing   bool // the time for the news of a pass is running, or over
	expired   bool // TellExpired was said
	taken     bool // somebody has deleted or written the place while the lock was ours
	lasting   bool // the place is looked after
	noLease   bool // the lease is useless, and takes along what is left
	again     bool // something was told while the place was being removed
	orphan    bool // K may be left without a place
	sure      bool // no request to join was under way when the removal began
	unclear   bool // an earlier try of the release may have been applied
	user      bool // TellReleased is owed
	given     bool // the lock was given back, and that is confirmed
	end       message.End
	lost      message.Reason

	request message.Request // the last one that was sent

	search position.Search
	out    []message.Effect
}

// New returns an idle machine.
func New(c message.Config) Machine {
	return Machine{Config: c, settled: true, pos: position.Position{Shares: c.Shares, Lease: c.Lease}}
}

// State returns the state.
func (m *Machine) State() State { return m.state }

// Token returns the fencing token, 0 before the lock was granted.
func (m *Machine) Token() int64 { return m.token }

// LostPlace reports whether somebody has deleted or written the place while the lock was ours.
func (m *Machine) LostPlace() bool { return m.taken }

// Created returns the revision that created the place, 0 as long as it is not known.
func (m *Machine) Created() int64 { return m.pos.Create }

// Strays reports whether a request that names the place may still be on its way, or it is not known
// what became of it: then the name must not be used again.
func (m *Machine) Strays() bool { return m.strays || m.pos.Unsure || !m.settled }

// HasLease reports whether the machine was not told that its lease is useless.
func (m *Machine) HasLease() bool { return !m.noLease }

// Successor returns who joined next. It is not ok if that is not known.
func (m *Machine) Successor() (next message.Successor, ok bool) {
	return m.pos.Next, m.pos.Next.Place != ""
}

// Position returns what the machine knows of its place.
func (m *Machine) Position() *position.Position { return &m.pos }

// Ahead returns the key that the machine waits for, "" if it does not.
func (m *Machine) Ahead() string {
	if m.state != Waiting || m.pos.Ahead.Gone {
		return ""
	}
	return m.pos.Ahead.Key
}

// transition changes the state. It is the only one who does.
func (m *Machine) transition(to State) {
	if to != m.state && !slices.Contains(arrows[m.state], to) {
		panic("protocol: no arrow from " + m.state.String() + " to " + to.String())
	}
	m.state = to
}

// Step takes an input and returns what has to be done, in this order. The effects are valid until
// the next call.
func (m *Machine) Step(in message.Input) []message.Effect {
	m.out = nil
	switch in := in.(type) {
	case message.Acquire:
		joining{m}.acquire()
	case message.Cancel:
		m.cancel()
	case message.Release:
		leaving{m}.release()
	case message.Answer:
		m.asked = false
		m.answer(in)
	case message.Event:
		hearing{m}.event(in)
	case message.Watching:
		hearing{m}.watching(in)
	case message.Observation:
		hearing{m}.observation(in)
	case message.Elapsed:
		m.elapsed()
	case message.Lasting:
		m.lasting = true
		if m.state == Held {
			holding{m}.watchHeld()
		}
	case message.Settled:
		if m.state == Joining && m.asked && m.request.Joins() { // another one is under way
			break
		}
		m.settled = true
		leaving{m}.recheck()
	case message.Renewed:
		leaving{m}.recheck()
	case message.Unreadable:
		if m.state < Held {
			m.pos.End = message.Failed
			waiting{m}.reconsider()
		}
	case message.GraceBegun:
		holding{m}.lose(message.Unrenewed)
	case message.ValidityOver:
		holding{m}.lose(message.Unrenewed)
		holding{m}.expire()
	case message.LeaseLost:
		m.leaseLost(in)
	}
	return m.out
}

// answer takes the answer to the request that is under way.
func (m *Machine) answer(a message.Answer) {
	m.strays = m.strays || a.Repeated
	switch m.state {
	case Joining:
		joining{m}.joinAnswer(a)
	case Waiting, Looking, Claiming:
		waiting{m}.waitAnswer(a)
	case Leaving:
		leaving{m}.leaveAnswer(a)
	default: // no request is under way in the other states
	}
}

// cancel ends the wait for the lock.
func (m *Machine) cancel() {
	switch m.state {
	case Joining, Waiting, Looking, Claiming:
		m.cancelled = true
		m.unpause()
		if !m.asked {
			leaving{m}.giveUp(message.Cancelled)
		}
	default: // it is over already
	}
}

// leaseLost says that the lease is useless.
func (m *Machine) leaseLost(l message.LeaseLost) {
	end, reason := message.NoLease, message.LeaseGone
	if l.History {
		end, reason = message.NoHistory, message.HistoryLost
	}
	switch m.state {
	case Idle, Joining, Waiting, Looking, Claiming:
		m.noLease, m.pos.End = true, end
		waiting{m}.reconsider()
	case Held, Lost:
		m.noLease = true
		holding{m}.lose(reason)
	case Leaving, Unconfirmed:
		m.noLease = true
		if l.History && m.lost == message.NotLost {
			m.lost = message.HistoryLost
		}
		if !m.asked || m.paused {
			leaving{m}.vanish()
		}
	default: // there is nothing under it
	}
}

// unsure says that it is not known whether the place is there, and whether the tail names it.
func (m *Machine) unsure() { m.pos.Unsure, m.pos.Named = true, m.Linked }

// named reports whether the tail may name the place: a request to join that comes late puts both,
// if somebody has deleted the place.
func (m *Machine) named() bool { return m.pos.Named || m.Linked && m.Strays() }

// do adds an effect.
func (m *Machine) do(e message.Effect) { m.out = append(m.out, e) }

// send asks for a request.
func (m *Machine) send(r message.Request) {
	m.asked, m.paused, m.request = true, false, r
	m.do(message.Effect{Do: message.Send, Request: r})
}

// unpause ends a pause.
func (m *Machine) unpause() {
	if m.paused {
		m.paused, m.asked = false, false
	}
}

// watch begins to watch a key, unless that is done already.
func (m *Machine) watch(of message.Watched, key string, from int64) {
	if m.pos.Watch(of, from) {
		m.do(message.Effect{Do: message.Watch, Of: of, Key: key, From: from})
	}
}

func (m *Machine) unwatch(of message.Watched) {
	if m.pos.Unwatch(of) {
		m.do(message.Effect{Do: message.Unwatch, Of: of})
	}
}

func (m *Machine) unwatchAll() {
	for of := range message.Watchers {
		m.unwatch(of)
	}
}

// endOf returns why a request that failed ends the wait.
func (m *Machine) endOf(a message.Answer) message.End {
	switch {
	case m.pos.End != message.NotEnded:
		return m.pos.End
	case m.cancelled: // that is why the outcome is unknown, if it is
		return message.Cancelled
	}
	return a.Outcome.End()
}

// over says once why the place will not get the lock.
func (m *Machine) over(why message.End) {
	if m.end != message.NotEnded {
		return
	}
	m.end = why
	if why == message.Busy {
		m.do(message.Effect{Do: message.TellBusy})
		return
	}
	m.do(message.Effect{Do: message.TellEnd, End: why})
}
