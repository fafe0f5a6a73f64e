// Command etcdlocker runs a command while holding a distributed lock on etcd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/buildinfo"
	"github.com/etcdlock/etcdlock/internal/early"
	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/whoami"
)

// Exit codes that are not the command's.
const (
	exitNotAcquired = 1 // nor could an answer be written
	exitLost        = 2
	exitNoCommand   = 3 // could not be started, or not be proved dead
	exitUnhealthy   = 4 // gave no sign of life, or a wrong one
	exitUsage       = 64
	exitSignal      = 128 // plus the signal's number
)

func main() { os.Exit(run()) }

func run() int {
	v := &voice{w: os.Stderr, front: inForeground, takes: stderrTakes}
	defer v.flush()
	speakForRPC(v)
	defer early.Guard.Close() // if it has got no command
	o, err := parseOptions(os.Args[1:], os.Getenv)
	switch {
	case err != nil:
		return v.fail(err, exitUsage)
	case o.help:
		return v.answer(usage)
	case o.version:
		return v.answer("etcdlocker " + buildinfo.Version() + "\n")
	}
	if o.verbose {
		v.date()
	}
	for _, sig := range o.ignored {
		signal.Ignore(sig)
	}
	record.Program.Kind, record.Program.User, record.Program.Why = "etcdlocker", whoami.User(), o.why
	signals := make(chan os.Signal, signalsKept)
	return (&locker{options: o, voice: v, signals: signals, caught: catchSignals(signals), launched: early.Guard}).run()
}

// answer writes to stdout, and returns the exit code.
func (v *voice) answer(text string) int {
	if _, err := os.Stdout.WriteString(text); err != nil {
		return v.fail(err, exitNotAcquired)
	}
	return 0
}

// fail says what went wrong and what to do, and returns the exit code.
func (v *voice) fail(err error, code int) int {
	v.errorf("%v", err)
	if hint := hintOf(err); hint != "" {
		v.hintf("%s", hint)
	}
	return code
}

// A locker takes one lock, or several, and runs one command under it.
type locker struct {
	*options
	voice   *voice
	signals chan os.Signal
	// Begins to catch them, and returns a channel that is closed when that is done.
	caught   func() <-chan struct{}
	launched *guard.Launched // that has got no command yet, nil if no guard waits for one
	proxy    string          // by which etcd is asked, empty without one
}

func (l *locker) run() int {
	path, err := l.findCommand()
	if err != nil {
		return l.voice.fail(err, exitNoCommand)
	}
	if path == "" || l.unguarded {
		l.launched.Close()
	} else if err := l.launched.Lacks(); err != nil && !l.noTimers {
		return l.voice.fail(l.noTimersFor(err, "nothing was locked"), exitNoCommand)
	}
	ctx, stopped := l.untilStopped(context.Background())
	h, err := l.acquire(ctx, path)
	if sig := stopped(); sig != 0 {
		if err == nil {
			h.close(releaseLimit)
			h.leave()
			l.voice.errorf("stopped by %s before the command was started; %s", signalName(sig), h.released())
		} else {
			l.voice.errorf("stopped by %s while waiting for %s", signalName(sig), l.keys.locks())
		}
		return exitSignal + int(sig)
	}
	if err != nil {
		return l.notAcquired(err)
	}
	defer h.run.close() // the client is closed with the process
	if len(l.command) == 0 {
		return h.holdOnly()
	}
	return h.supervise()
}

// untilStopped returns a context that ends when a signal tells us to stop. The function returned
// leaves the signals to others, and returns the one that ended the context, or 0.
func (l *locker) untilStopped(parent context.Context) (context.Context, func() syscall.Signal) {
	ctx, cancel := context.WithCancel(parent)
	quit, result := make(chan struct{}), make(chan syscall.Signal, 1)
	go func() {
		sig := waitForStop(quit, l.signals)
		if sig != 0 {
			cancel()
		}
		result <- sig
	}()
	return ctx, func() syscall.Signal {
		close(quit)
		return <-result
	}
}

// waitForStop returns the first signal that ends us, or 0 when quit is closed.
func waitForStop(quit <-chan struct{}, signals <-chan os.Signal) syscall.Signal {
	for {
		select {
		case sig := <-signals:
			if sig, ok := sig.(syscall.Signal); ok && endsWaiting(sig) {
				return sig
			}
			if sig == unix.SIGTSTP && !continued() {
				stopSelf() // it is only caught once there was a command
			}
		case <-quit:
			return 0
		}
	}
}
