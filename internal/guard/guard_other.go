//go:build unix && !linux

package guard

import "context"

// Exists says whether there are guards on this system.
const Exists = false

// A Launched is a guard process that was given no command yet. There is none on this system.
type Launched struct{ words []string }

// Launch returns what runs commands without a guard.
func Launch(args []string) *Launched { return &Launched{words: args} }

// Ready does nothing.
func (l *Launched) Ready() {}

// Command returns a command: the program at path with the words from first on, before which another one can be put.
func (l *Launched) Command(path, interpreter string, first int) (Command, error) {
	return Unguarded(path, interpreter, l.words[first:]), nil
}

// Close does nothing.
func (l *Launched) Close() {}

// Attested returns false: there is no guard to attest anything.
func Attested(int64) bool { return false }

// Forget does nothing.
func Forget(int64) {}

// OnAttestation does nothing.
func OnAttestation(context.Context, func()) {}
