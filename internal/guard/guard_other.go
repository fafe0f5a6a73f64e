//go:build unix && !linux

package guard

import (
	"context"
	"errors"
	"os"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Exists says whether there are guards on this system.
const Exists = false

// A Launched is a guard process that was given no command yet. This system has no guard.
type Launched struct{ words []string }

// Unsteer does nothing: GODEBUG steers this process as well.
func Unsteer() {}

func environ() []string { return os.Environ() }

// Launch returns what runs commands without a guard.
func Launch(args []string) *Launched { return &Launched{words: args} }

// Lacks returns nil.
func (l *Launched) Lacks() error { return nil }

// Command returns a command: the program at path with the words from first on, before which another
// one can be put.
func (l *Launched) Command(path, interpreter string, first int) (Command, error) {
	return Unguarded(path, interpreter, l.words[first:]), nil
}

// Close does nothing.
func (l *Launched) Close() {}

// Attest does nothing: nobody would believe it.
func Attest(int64) error { return nil }

// Attested returns false: there is no guard to attest anything.
func Attested(int64) bool { return false }

// Forget does nothing.
func Forget(int64) {}

// OnAttestation does nothing.
func OnAttestation(context.Context, func()) {}

// Checks are run by a guard. There are none on this system.
type Checks struct{}

// NewChecks returns an error.
func NewChecks() (*Checks, error) { return nil, errors.ErrUnsupported }

// Channel returns nothing.
func (c *Checks) Channel() int { return 0 }

// Begin does nothing.
func (c *Checks) Begin() {}

// Run returns an error.
func (c *Checks) Run(int, string, int) supervise.Result {
	return supervise.Result{Err: errors.ErrUnsupported}
}

// Close does nothing.
func (c *Checks) Close() {}
