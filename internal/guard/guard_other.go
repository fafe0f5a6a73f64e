//go:build unix && !linux

package guard

import "context"

// New returns a command. There is no guard on this system.
func New(path string, args []string) (Command, error) { return Unguarded(path, args), nil }

// Attested returns false: there is no guard to attest anything.
func Attested(int64) bool { return false }

// Forget does nothing.
func Forget(int64) {}

// OnAttestation does nothing.
func OnAttestation(context.Context, func()) {}
