//go:build unix

package guard

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A Command is one to run while a lock is held, from before it is started until nothing of it is left.
type Command interface {
	supervise.Processes

	// Start starts it, with variables added to our environment, by a moment after which too little is left of the lock's
	// validity, and before ctx is done, or not at all. If it fails, nothing of the command runs, or the error is ErrUndead. It
	// has not run, or the error is ErrKilled. After ErrGone another guard can be tried. The lease is the one that the lock
	// hangs on.
	Start(ctx context.Context, by, validUntil boottime.Instant, lease int64, env []string) error

	// Extend says until when the lock is valid now.
	Extend(validUntil boottime.Instant)

	// PID returns the process id of the command.
	PID() int

	// Others returns the processes of the command that are there, as far as they can be found.
	Others() []supervise.Process

	// Close stops looking after it. What is left of it is not touched. A command that was never started never will be.
	Close()
}

// ErrUndead says that processes could not be killed.
var ErrUndead = errors.New("processes could not be killed")

// ErrGone says that the guard process was killed or stopped before it had begun to execute the command.
var ErrGone = errors.New("the guard process did not start the command")

// ErrKilled says that the guard process was killed or stopped while it started the command, which was killed.
var ErrKilled = errors.New("the guard process was killed, and the command with it")

// because is an error with its cause.
type because struct{ what, why error }

func (b because) Error() string   { return b.what.Error() + ": " + b.why.Error() }
func (b because) Unwrap() []error { return []error{b.what, b.why} }

// Unguarded returns a command that nobody looks after when this process is killed or stopped.
func Unguarded(path string, args []string) Command { return &unguarded{path: path, args: args} }

type unguarded struct {
	*supervise.Tree
	path string
	args []string
}

func (u *unguarded) Start(ctx context.Context, by, _ boottime.Instant, _ int64, env []string) (err error) {
	if ctx.Err() != nil || by.Until() <= 0 {
		return ErrGone
	}
	u.Tree, err = supervise.Start(supervise.Command{Path: u.path, Args: u.args, Env: environment(os.Environ(), env)})
	return err
}

func (u *unguarded) Extend(boottime.Instant) {}

func (u *unguarded) Others() []supervise.Process { return supervise.Descendants() }

func (u *unguarded) Close() {
	if u.Tree != nil {
		u.Tree.Close()
	}
}

// environment adds variables to an environment. They come last and replace what had their names.
func environment(base, add []string) []string {
	var names []string
	for _, kv := range add {
		name, _, _ := kernel.Cut(kv, '=')
		names = append(names, name+"=")
	}
	return append(without(base, names...), add...)
}

// without returns env without some variables, whose names end with the equals sign.
func without(env []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			_, is := kernel.CutPrefix(kv, name)
			return is
		})
	})
}
