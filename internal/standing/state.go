package standing

import "slices"

// A State is what a machine is doing. The comment of package protocol has the drawing.
type State int

// The states.
const (
	Idle State = iota
	Joining
	Waiting
	Looking
	Claiming
	First
	Held
	Lost
	Leaving
	Unconfirmed
	Gone
)

// String returns the name of the state.
func (s State) String() string {
	return [...]string{"idle", "joining", "waiting", "looking", "claiming", "first", "held", "lost", "leaving", "unconfirmed", "gone"}[s]
}

// arrows are the changes of state that there are.
var arrows = map[State][]State{
	Idle:        {Joining},
	Joining:     {First, Held, Waiting, Looking, Leaving, Gone},
	Waiting:     {First, Held, Looking, Claiming, Leaving},
	Looking:     {First, Held, Waiting, Claiming, Leaving},
	Claiming:    {First, Held, Looking, Leaving},
	First:       {Held, Leaving},
	Held:        {Lost, Leaving},
	Lost:        {Leaving},
	Leaving:     {Unconfirmed, Gone},
	Unconfirmed: {Leaving, Gone},
}

// Transition changes the state. It is the only one who does.
func (m *Standing) Transition(to State) {
	if to != m.State && !slices.Contains(arrows[m.State], to) {
		panic("standing: no arrow from " + m.State.String() + " to " + to.String())
	}
	m.State = to
}
