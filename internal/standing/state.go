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

// arrows are the changes of state that there are. The comment of package protocol lists them.
var arrows = map[State][]State{
	Idle:        {Joining},
	Joining:     {First, Held, Waiting, Looking, Leaving, Gone},
	Waiting:     {First, Held, Looking, Claiming, Leaving},
	Looking:     {First, Held, Waiting, Looking, Claiming, Leaving}, // another read of it follows
	Claiming:    {First, Held, Looking, Leaving},
	First:       {Held, Leaving},
	Held:        {Lost, Leaving},
	Lost:        {Leaving},
	Leaving:     {Unconfirmed, Gone},
	Unconfirmed: {Leaving, Gone},
}

// Transition changes the state, as nothing else does. It panics if no arrow leads there, also from
// a state to itself.
func (m *Standing) Transition(to State) {
	if !slices.Contains(arrows[m.State], to) {
		panic("standing: no arrow from " + m.State.String() + " to " + to.String())
	}
	m.State = to
}
