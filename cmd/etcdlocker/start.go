package main

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/supervise"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// errNoTime says that the command could not be ended in time if it was started.
var errNoTime = errors.New("too little of the validity was left to start the command")

// A stopped error says that a signal told us to stop before the command had started.
type stopped syscall.Signal

func (s stopped) Error() string {
	return "stopped by " + signalName(syscall.Signal(s)) + " before the command had started"
}

// guardsTried is how many guards may be killed or stopped before their command has started.
const guardsTried = 3

// start starts the command, which will be watched. Its guard may have been killed or stopped while
// we waited for the lock: then another one does it.
func (h *holder) start(watched *pulsing) (run guard.Command, err error) {
	for try := range guardsTried {
		if try > 0 {
			h.voice.logger(h.verbose).Warn("starting another guard process", "cause", err)
			h.run.again()
		}
		if run, err = h.run.await(); err != nil {
			continue
		}
		if h.held.Remaining() <= h.grace {
			h.held.Refresh(h.work) // what comes of it is seen below
		}
		h.voice.flush() // what was said comes before what the command says
		o := guard.Order{
			ValidUntil: h.validUntil(),
			Allowed:    h.allowed(),
			Ahead:      validity.MaxAhead(h.ttl, h.refresh),
			Lease:      int64(h.held.Lease()),
			Env:        h.environment(),
			NoTimers:   h.noTimers,
			Ignored:    h.ignored,
		}
		watched.prepare(&o)
		o.By = o.ValidUntil.Add(-h.grace)
		if h.work.Err() != nil || o.By.Until() <= 0 {
			return nil, errNoTime
		}
		if sig := h.toldToStop(); sig != 0 {
			return nil, stopped(sig)
		}
		if err = run.Start(h.work, o); !errors.Is(err, guard.ErrGone) {
			return run, err
		}
		if h.work.Err() != nil {
			return nil, errNoTime
		}
	}
	return nil, err
}

// toldToStop takes the signals that came, for the command once it has started, and returns the
// first one among all of them that tells to stop.
func (h *holder) toldToStop() syscall.Signal {
	for range len(h.signals) {
		if sig := <-h.signals; !isOwnLimit(sig.(syscall.Signal)) {
			h.before = append(h.before, sig)
		}
	}
	for _, sig := range h.before {
		if s, ok := sig.(syscall.Signal); ok && supervise.IsStop(s) {
			return s
		}
	}
	return 0
}

// notStarted says why the command was not started, and returns the exit code.
func (h *holder) notStarted(run guard.Command, err error) int {
	var told stopped
	switch {
	case errors.Is(err, guard.ErrUnkillable):
		return h.unkillable(run)
	case errors.Is(err, errNoTime):
		if !h.release() {
			h.voice.errorf("%s: %v", h.keys.locks(), err)
		}
		return exitLost
	case errors.Is(err, guard.ErrKilled):
		if h.release() {
			return exitLost
		}
		return h.guardKilled()
	case errors.As(err, &told):
		h.close(releaseLimit)
		h.voice.errorf("%v; %s", err, h.released())
		return exitSignal + int(told)
	}
	h.close(releaseLimit)
	return h.voice.fail(h.explainStart(err), exitNoCommand)
}

func (h *holder) explainStart(err error) error {
	switch {
	case errors.Is(err, guard.ErrNoTimers):
		return h.noTimersFor(err, h.wereReleased())
	case errors.Is(err, guard.ErrLowest):
		return usagef("start etcdlocker at real-time priority 2 or higher (chrt), or allow a higher one (ulimit -r); "+h.wereReleased(), "cannot run %q: %w", h.program(), err)
	}
	if (errors.Is(err, guard.ErrGone) || errors.As(err, new(*os.SyscallError))) && !errors.Is(err, unix.E2BIG) {
		return usagef("each command has a guard, a process that needs /proc and must be left alone; "+h.wereReleased(), "no guard for %q: %w", h.program(), err)
	}
	return usagef(hintOfStart(err)+h.wereReleased(), "cannot run %q: %w", h.program(), err)
}

// noTimersFor says what can be done where the kernel refuses the guard's timers, and what was done.
func (l *locker) noTimersFor(err error, done string) error {
	return usagef("raise the limit (ulimit -i), or accept with --no-kernel-timers that the command runs on if etcdlocker and its guard are both stopped; "+done,
		"cannot run %q: %w", l.program(), err)
}
