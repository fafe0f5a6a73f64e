package main

import (
	"os"

	"golang.org/x/term"
)

// A terminalState is how the terminal on stdin was set before the command ran, nil if there is none.
type terminalState struct{ state *term.State }

func saveTerminal() terminalState {
	state, err := term.GetState(int(os.Stdin.Fd()))
	if err != nil {
		return terminalState{}
	}
	return terminalState{state}
}

// restore undoes what a command that was killed could not undo itself. From the background it would stop us.
func (t terminalState) restore() {
	if t.state != nil && inForeground() {
		term.Restore(int(os.Stdin.Fd()), t.state)
	}
}
