//go:build unix && !linux

package guard

import "context"

// A Launched is a guard process that was given no command yet. There is none on this system.
type Launched struct{ words []string }

// Launch returns what runs commands without a guard.
func Launch(args []string) *Launched { return &Launched{words: args} }

// Ready does nothing.
func (l *Launched) Ready() {}

// Command returns a command: the program at path with the words from first on.
func (l *Launched) Command(path string, first int) (Command, error) {
	return Unguarded(path, l.words[first:]), nil
}

// Close does nothing.
func (l *Launched) Close() {}

// Attested returns false: there is no guard to attest anything.
func Attested(int64) bool { return false }

// Forget does nothing.
func Forget(int64) {}

// OnAttestation does nothing.
func OnAttestation(context.Context, func()) {}
