//go:build unix

package guard

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A Command is one to run while a lock is held, from before it is started until nothing of it is
// left.
type Command interface {
	supervise.Processes

	// Start starts it before ctx is done, and in time, or not at all. If it fails, nothing of the
	// command runs, or the error is ErrUnkillable. It has not run, or the error is ErrKilled. After
	// ErrGone another guard can be tried.
	Start(ctx context.Context, o Order) error

	// Extend says until when the lock is valid now, and how much time beyond the usual margin lies
	// between that and the moment when etcd may free the lock, for killing everything.
	Extend(validUntil boottime.Instant, allowed time.Duration)

	// Measured returns what it would have taken to kill everything at the last Extend or before, if
	// that is known.
	Measured() (m Measure, ok bool)

	// Sent reports whether the guard was sent a signal as well, by so long ago at most, or is
	// within that time. It reports each one once.
	Sent(sig syscall.Signal, within time.Duration) bool

	// PID returns the process id of the command.
	PID() int

	// Others returns the processes of the command that are there, as far as they can be found.
	Others() []supervise.Process

	// GiveWay has this process go before others no longer, soon, as there is nothing of the command
	// that would have to be ended: the processor is the next holder's.
	GiveWay()

	// Close stops looking after it. What is left of it is not touched. A command that was never
	// started never will be.
	Close()
}

// ErrUnkillable says that processes could not be killed.
var ErrUnkillable = errors.New("processes could not be killed")

// ErrGone says that the guard process was killed or stopped before it had begun to execute the
// command.
var ErrGone = errors.New("the guard process did not start the command")

// ErrKilled says that the guard process was killed or stopped while it started the command, which
// was killed.
var ErrKilled = errors.New("the guard process was killed, and the command with it")

// ErrNoTimers says that the kernel has no timers for the guard process: the user has used up what
// RLIMIT_SIGPENDING allows.
var ErrNoTimers = errors.New("the kernel refuses the timers that guard a stopped etcdlocker (RLIMIT_SIGPENDING)")

// ErrLowest says that the command would run at the guard's own real-time priority, as nothing lower
// is left for it, and no higher one allowed for the guard.
var ErrLowest = errors.New("at real-time priority 1, without the right to a higher one, no command can run below its guard process")

// because is an error with its cause.
type because struct{ what, why error }

func (b because) Error() string   { return b.what.Error() + ": " + b.why.Error() }
func (b because) Unwrap() []error { return []error{b.what, b.why} }

// Unguarded returns a command, as Launched does, that nobody looks after when this process is
// killed or stopped.
func Unguarded(path, interpreter string, words []string) Command {
	return &unguarded{path: path, args: withInterpreter(interpreter, words)}
}

// withInterpreter returns words with another one before them, unless that is empty.
func withInterpreter(interpreter string, words []string) []string {
	if interpreter == "" {
		return words
	}
	return append([]string{interpreter}, words...)
}

type unguarded struct {
	*supervise.Tree
	path string
	args []string
}

func (u *unguarded) Start(ctx context.Context, o Order) (err error) {
	if ctx.Err() != nil || o.By.Until() <= 0 {
		return ErrGone
	}
	channel := 0
	if o.Channel > 0 {
		// The copy is inherited.
		if channel, err = syscall.Dup(o.Channel); err != nil {
			return os.NewSyscallError("dup", err)
		}
		defer syscall.Close(channel)
	}
	u.Tree, err = supervise.Start(supervise.Command{Path: u.path, Args: u.args, Env: withChannel(environment(environ(), o.Env), channel)})
	return err
}

func (u *unguarded) Extend(boottime.Instant, time.Duration) {}

func (u *unguarded) Measured() (m Measure, ok bool) { return m, false }

func (u *unguarded) Sent(syscall.Signal, time.Duration) bool { return false }

func (u *unguarded) Others() []supervise.Process { return supervise.Descendants() }

func (u *unguarded) GiveWay() {}

func (u *unguarded) Close() {
	if u.Tree != nil {
		u.Tree.Close()
	}
}

// channelNumber is under which name Node.js looks for the number of the channel that it inherits.
const channelNumber = "NODE_CHANNEL_FD="

// personal are variables that are meant for one process, and not for whatever that one starts:
// here, for this process.
var personal = []string{channelNumber, "NODE_CHANNEL_SERIALIZATION_MODE=", "WATCHDOG_PID=", "ETCD_CHILD_IS_NODE="}

// isCredential reports whether a variable holds a password or a token for etcd, which only
// etcdlocker needs.
func isCredential(kv string) bool {
	if user, is := kernel.CutPrefix(kv, "ETCDCTL_USER="); is {
		_, _, is = kernel.Cut(user, ':')
		return is
	}
	_, password := kernel.CutPrefix(kv, "ETCDCTL_PASSWORD=")
	_, token := kernel.CutPrefix(kv, "ETCDCTL_AUTH_JWT_TOKEN=")
	return password || token
}

// Credentials returns those variables of an environment that hold a password or a token for etcd. A
// command gets them if they are in its Order.
func Credentials(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return !isCredential(kv) })
}

// environment adds variables to an environment. They come last and replace what had their names. A
// name alone takes its variable away.
func environment(base, add []string) []string {
	names := slices.Clone(personal)
	var set []string
	for _, kv := range add {
		name, _, sets := kernel.Cut(kv, '=')
		names = append(names, name+"=")
		if sets {
			set = append(set, kv)
		}
	}
	return append(slices.DeleteFunc(without(base, names...), isCredential), set...)
}

// withChannel returns env with the number of a channel, if it is one.
func withChannel(env []string, channel int) []string {
	if channel <= 0 {
		return env
	}
	return append(env[:len(env):len(env)], channelNumber+strconv.Itoa(channel))
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
