package protocol

import (
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/position"
	"github.com/etcdlock/etcdlock/internal/removal"
	"github.com/etcdlock/etcdlock/internal/standing"
)

// A Machine is one place in line, from the request to join until nothing of it is left. Whoever has
// to begin again makes a new Machine, with another place.
//
// The zero Machine is not usable: see New. It is a value: a copy is another machine in the same
// state.
type Machine struct{ standing.Standing }

// New returns an idle machine.
func New(c message.Config) Machine {
	return Machine{standing.Standing{Config: c, Settled: true, Pos: position.Position{Shares: c.Shares, Kind: c.Kind, Lease: c.Lease}}}
}

// LostPlace reports whether somebody has deleted or written the place while the lock was ours.
func (m *Machine) LostPlace() bool { return m.Taken }

// Created returns the revision that created the place, 0 as long as it is not known.
func (m *Machine) Created() int64 { return m.Pos.Create }

// HasLease reports whether the machine was not told that its lease is useless.
func (m *Machine) HasLease() bool { return !m.NoLease }

// Position returns what the machine knows of its place.
func (m *Machine) Position() *position.Position { return &m.Pos }

// Ahead returns the key that the machine waits for, "" if it does not.
func (m *Machine) Ahead() string {
	if m.State != standing.Waiting || m.Pos.Ahead.Gone {
		return ""
	}
	return m.Pos.Ahead.Key
}

// Step takes an input and returns what has to be done, in this order.
func (m *Machine) Step(in message.Input) []message.Effect { return m.StepIn(in, nil) }

// StepIn is Step that adds the effects to some, which have room for them.
func (m *Machine) StepIn(in message.Input, some []message.Effect) []message.Effect {
	m.Out = some
	switch in := in.(type) {
	case message.Acquire:
		joining{m}.acquire()
	case message.Cancel:
		m.cancel()
	case message.Release:
		m.leaving().Release()
	case message.Answer:
		m.Asked = false
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
		if m.State == standing.Held {
			holding{m}.watchHeld()
		}
	case message.Settled:
		if m.State == standing.Joining && m.Asked && m.Request.Joins() { // another one is under way
			break
		}
		m.Settled = true
		m.leaving().Recheck()
	case message.Renewed:
		m.leaving().Recheck()
	case message.Unreadable:
		if m.State < standing.Held {
			m.Pos.End = message.Failed
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
	some, m.Out = m.Out, nil
	return some
}

// answer takes the answer to the request that is under way.
func (m *Machine) answer(a message.Answer) {
	m.Stray = m.Stray || a.Repeated
	switch m.State {
	case standing.Joining:
		joining{m}.joinAnswer(a)
	case standing.Waiting, standing.Looking, standing.Claiming:
		waiting{m}.waitAnswer(a)
	case standing.First:
		first{m}.answer(a)
	case standing.Leaving:
		m.leaving().Answer(a)
	default: // no request is under way in the other states
	}
}

// cancel ends the wait for the lock.
func (m *Machine) cancel() {
	switch m.State {
	case standing.Joining, standing.Waiting, standing.Looking, standing.Claiming, standing.First:
		m.Cancelled = true
		m.Unpause()
		if !m.Asked {
			m.leaving().GiveUp(message.Cancelled)
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
	switch m.State {
	case standing.Idle, standing.Joining, standing.Waiting, standing.Looking, standing.Claiming, standing.First:
		m.NoLease, m.Pos.End = true, end
		waiting{m}.reconsider()
	case standing.Held, standing.Lost:
		m.NoLease = true
		holding{m}.lose(reason)
	case standing.Leaving, standing.Unconfirmed:
		m.NoLease = true
		if l.History && m.Lost == message.NotLost {
			m.Lost = message.HistoryLost
		}
		if !m.Asked || m.Paused {
			m.leaving().Vanish()
		}
	default: // there is nothing under it
	}
}

// leaving is a machine that removes what there is of its place.
func (m *Machine) leaving() removal.Removal { return removal.Removal{Standing: &m.Standing} }
