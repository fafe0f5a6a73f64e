package main

import (
	"cmp"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// passed are the signals that go on to the command, and SIGTSTP while there is one. SIGTTIN and
// SIGTTOU keep their effect on us: the kernel sends them to the whole group. SIGCHLD, SIGURG,
// SIGPROF and SIGPIPE are about us alone.
var passed = []syscall.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGWINCH,
	unix.SIGIO, unix.SIGVTALRM, unix.SIGXCPU, unix.SIGXFSZ,
}

// catchSignals returns a function that begins to send the signals to pass on to c, and returns a
// channel that is closed when all of them are caught. That is done a little at a time: for each of
// them Go's runtime changes threads and back, and all together take as long as a round trip to
// etcd, but can be done while one is waited for. A SIGHUP or SIGINT that we were started to ignore,
// as by nohup or in the background of a script, stays ignored, by the command as well. Of others
// Go's runtime does not tell: it has replaced that by its own handler.
func catchSignals(c chan os.Signal) func() <-chan struct{} {
	return sync.OnceValue(func() <-chan struct{} {
		caught := make(chan struct{})
		go func() {
			defer close(caught)
			runtime.Gosched()
			dieOfFaults()
			signal.Notify(continues, unix.SIGCONT)
			kernel.NoteSender(unix.SIGCONT) // continued asks when it came
			signal.Notify(children, unix.SIGCHLD)
			catchAll(c, passed)
			time.AfterFunc(catchLateAfter, func() { catchAll(c, passedLate) })
		}()
		return caught
	})
}

// dieOfFaults has signals of faults end this process at once if a process sends them, as they end
// others. Go would have all of its threads shown first, by SIGQUIT, and wait for 10 s where that is
// caught. Faults of this process are not touched.
func dieOfFaults() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, faults...)
	go func() {
		if sig, ok := (<-c).(syscall.Signal); ok {
			signal.Stop(c)
			kernel.LeaveDefault(sig) // where that does nothing, it is Go's again
			unix.Kill(os.Getpid(), sig)
		}
	}()
}

// ignorable returns the signal with a name, which may begin with SIG, or a number, and whether
// etcdlocker can do without it.
func ignorable(name string) (sig syscall.Signal, ok bool) {
	sig = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if n, err := strconv.Atoi(name); err == nil {
		sig = syscall.Signal(n)
	}
	others := []syscall.Signal{unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGPIPE}
	return sig, slices.Contains(slices.Concat(passed, passedLate, others), sig)
}

// signalsKept is how many signals find room until they are received. It may take
// supervise.SameSignalWithin until somebody looks, and what finds no room is lost.
const signalsKept = 1024

// catchLateAfter is when the signals are caught that are hardly ever sent. The shortest commands do
// without.
const catchLateAfter = 100 * time.Millisecond

func catchAll(c chan<- os.Signal, signals []syscall.Signal) {
	for _, sig := range signals {
		catch(c, sig)
		// What etcd is asked meanwhile goes first. It may hand on from goroutine to goroutine once.
		runtime.Gosched()
		runtime.Gosched()
	}
}

// catch has a signal sent to c, and its sender noted, unless it is ignored.
func catch(c chan<- os.Signal, sig syscall.Signal) {
	if !signal.Ignored(sig) {
		signal.Notify(c, sig)
		kernel.NoteSender(sig)
	}
}

// settle returns when the signals that were sent before are in the channel of catchSignals, but for
// those that stop a process, which may come later. Signals are handled in the order of their
// numbers, and SIGCHLD comes behind all others that matter. SIGCONT would as well, but it removes a
// SIGTSTP that is still pending: Ctrl-Z would stop the command, and not this process.
func settle() { raise(unix.SIGCHLD, children, 100*time.Millisecond) }

// These receive SIGCONT and SIGCHLD once signals are caught.
var (
	continues = make(chan os.Signal, 1)
	children  = make(chan os.Signal, 1)
)

// raise sends a signal to this process, and waits until one comes to c, or for so long: somebody
// may have blocked it.
func raise(sig syscall.Signal, c <-chan os.Signal, limit time.Duration) {
	select {
	case <-c: // an earlier one
	default:
	}
	if unix.Kill(os.Getpid(), sig) != nil {
		return
	}
	select {
	case <-c:
	case <-time.After(limit):
	}
}

// reach says who else has got a signal that was received just now.
//
// A terminal sends what is typed, and its new size, to the whole foreground group. A service
// manager sends a signal to everything in a unit: then it comes to the guard as well. Anybody else
// who sends it to both may mean all that is called etcdlocker, and the command has not got it.
//
// A command that is told to stop by the terminal, and has something to do before, sends the SIGTSTP
// to the group again.
//
// When the leader of a session dies, the kernel sends HUP to the foreground group. To the leader
// itself it sends one when the terminal hangs up.
func reach(sig syscall.Signal, run guard.Command) supervise.Reach {
	if isOwnLimit(sig) {
		return supervise.Us
	}
	sender, known := kernel.LastSender(sig)
	switch sig {
	case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGWINCH:
		if sender.Kernel || !known && inForeground() {
			return supervise.Group
		}
		if sig == unix.SIGTSTP && isInGroup(sender.PID) {
			return supervise.Group
		}
	case unix.SIGHUP:
		if session, err := unix.Getsid(0); sender.Kernel && err == nil && session != os.Getpid() {
			return supervise.Group
		}
	}
	if isManager(sender.PID) && run.Sent(sig, supervise.SameSignalWithin) {
		return supervise.Unit
	}
	return supervise.Alone
}

// isInGroup reports whether a process is below this one, and in its process group.
func isInGroup(pid int) bool {
	group, err := unix.Getpgid(pid)
	return pid > 0 && err == nil && group == unix.Getpgrp() && pid != os.Getpid() && supervise.IsBelow(pid)
}

// isOwnLimit reports whether a signal that was received just now came because this process has met
// a limit (ulimit -f, -t): the kernel tells whoever meets one.
func isOwnLimit(sig syscall.Signal) bool {
	if sig != unix.SIGXCPU && sig != unix.SIGXFSZ {
		return false
	}
	sender, known := kernel.LastSender(sig)
	return known && (sender.Kernel || sender.PID == os.Getpid())
}

// isManager reports whether a process can be the service manager that has started us: one above us,
// from another session. A shell in ours may send a signal to all that is called etcdlocker.
func isManager(pid int) bool {
	if pid <= 0 || !supervise.IsAbove(pid) {
		return false
	}
	ours, err := unix.Getsid(0)
	theirs, err2 := unix.Getsid(pid)
	return err == nil && err2 == nil && ours != theirs
}

// endsWaiting reports whether a signal ends an etcdlocker without a command to pass it on to.
// SIGALRM is that of an alarm that was set before etcdlocker was executed, and SIGABRT a service
// manager's: they would end the command.
func endsWaiting(sig syscall.Signal) bool {
	return supervise.IsStop(sig) || sig == unix.SIGALRM || sig == unix.SIGABRT
}

// signalName names a signal in messages. Real-time signals have a number alone.
func signalName(sig syscall.Signal) string {
	return cmp.Or(unix.SignalName(sig), "signal "+strconv.Itoa(int(sig)))
}

// stopsWithin is how long a command may take to stop for a SIGTSTP to us alone that a SIGCONT has
// followed. If it is stopped later, somebody else has stopped it.
const stopsWithin = 2 * time.Second

// continued reports whether a SIGCONT has come after the last SIGTSTP.
func continued() bool { return kernel.CameAfter(unix.SIGCONT, unix.SIGTSTP) }

// stopSelf stops this process, and returns when it was continued. The first one of a pid namespace
// cannot stop itself.
func stopSelf() {
	if os.Getpid() != 1 {
		// Not SIGTSTP: Go's runtime does not give a signal that was caught its own effect again.
		raise(unix.SIGSTOP, continues, time.Second)
	}
}
