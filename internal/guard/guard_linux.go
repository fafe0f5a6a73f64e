package guard

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Why a guard has not started its command.
var (
	errGone = errors.New("it was killed")
	errLate = errors.New("it did not answer in time")
	errLost = errors.New("the lock is lost")
)

// A refusal is the kernel's: the command cannot be executed.
type refusal struct{ syscall.Errno }

func (r refusal) Unwrap() error { return r.Errno }

// A guarded command is seen from etcdlocker: the guard is its child, and so is whatever the guard may leave.
type guarded struct {
	tree              *supervise.Tree // with the guard at its root
	conn              *conn
	path, interpreter string
	first             int
	group             func() *cgroup // of the command, if it may have one
	pid               int            // of the command
	pidfd             int            // of the command; negative before the start, and where there are none

	frozen []supervise.Process

	started chan beginning
	exited  chan supervise.Exit
	stopped supervise.Latest
	heard   chan struct{} // closed when the guard has said all it will ever say
	begun   bool          // it has begun to execute the command; set before heard is closed
}

// A beginning is the news that the command has started, or why not.
type beginning struct {
	pid, pidfd int
	err        error
}

// listen hears what the guard says, until it is gone.
func (g *guarded) listen() {
	defer close(g.heard)
	for {
		m, fd, err := g.conn.receive()
		if err != nil {
			break
		}
		a, b, err := parseNumbers(m)
		if err != nil {
			break
		}
		switch kind(m[0]) {
		case begun:
			g.begun = true
		case started:
			g.started <- beginning{pid: int(a), pidfd: fd}
		case failed:
			g.begun = false
			g.started <- beginning{err: refused(syscall.Errno(a))}
		case exited:
			g.exited <- supervise.Exit{Status: syscall.WaitStatus(a), Left: b != 0}
		case stopped:
			g.stopped.Put(a != 0)
		}
	}
	select {
	case g.started <- beginning{err: errGone}:
	default:
	}
	g.exited <- supervise.Exit{Status: syscall.WaitStatus(syscall.SIGKILL), Left: true, Unguarded: true}
}

func (g *guarded) Start(ctx context.Context, o Order) error {
	g.group = sync.OnceValue(func() *cgroup {
		group, err := cgroupOf(o.Lease)
		if err != nil {
			return &cgroup{}
		}
		return group
	})
	o.pgid, o.first, o.interpreter, o.path = syscall.Getpgrp(), g.first, g.interpreter, g.path
	err := g.conn.send(o.message(start), o.Channel)
	if err == syscall.EPIPE || err == syscall.ECONNRESET {
		err = errGone
	}
	if err == nil {
		err = g.await(ctx, min(o.By, boottime.Now().Add(answerWithin)))
	}
	if err == nil {
		return nil
	}
	life := supervise.NewLife(g)
	life.Expired(time.Now())
	supervise.Drive(life, g, supervise.Events{})
	if life.Undead {
		return because{ErrUndead, err}
	}
	<-g.heard // all of it is dead, and with it the other end of the channel
	switch {
	case errors.As(err, new(refusal)):
		return err
	case g.begun:
		return because{ErrKilled, err}
	}
	return because{ErrGone, err}
}

func refused(errno syscall.Errno) error {
	if errno == syscall.ETIME {
		return errLate
	}
	return refusal{errno}
}

// answerWithin is how long a guard may take to start its command. It takes milliseconds if it is not stopped, and the command
// does not come from a file system that hangs.
const answerWithin = 10 * time.Second

// await waits until the guard has started the command.
func (g *guarded) await(ctx context.Context, by boottime.Instant) error {
	timer := boottime.NewTimer()
	defer timer.Close()
	timer.Reset(by)
	select {
	case b := <-g.started:
		if b.err == nil {
			g.pid, g.pidfd = b.pid, b.pidfd
		}
		return b.err
	case <-timer.C:
		return errLate
	case <-ctx.Done():
		return errLost
	}
}

func (g *guarded) Extend(validUntil boottime.Instant) {
	g.conn.send(Order{ValidUntil: validUntil}.message(extend), 0)
}

func (g *guarded) PID() int                      { return g.pid }
func (g *guarded) Exited() <-chan supervise.Exit { return g.exited }
func (g *guarded) Stopped() <-chan bool          { return g.stopped }

// Empty is closed when the guard is gone, too: it goes when nothing is left below it, and what it may leave when it is
// killed falls to this process.
func (g *guarded) Empty() <-chan struct{} { return g.tree.Empty() }

func (g *guarded) Signal(sig syscall.Signal) {
	if g.pidfd >= 0 {
		kernel.PidfdSignal(g.pidfd, sig)
	} else if g.pid > 0 {
		syscall.Kill(g.pid, sig) // an old kernel; the guard tells when the command has ended, and then there are no more signals
	}
}

func (g *guarded) Terminate() {
	others := g.Others()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		for _, p := range others {
			p.Signal(sig)
		}
		if len(others) == 0 {
			g.Signal(sig) // /proc shows nothing
		}
	}
}

// Freeze has the group stand still, and what is not in it one by one. Where /proc shows nothing it is the command alone.
func (g *guarded) Freeze() {
	group := g.group()
	group.freeze(true)
	g.frozen = supervise.Freeze(func() (outside []supervise.Process) {
		for _, p := range g.Others() {
			if !group.has(p.PID) {
				outside = append(outside, p)
			}
		}
		return outside
	})
	if len(g.Others()) == 0 {
		g.Signal(syscall.SIGSTOP)
	}
}

func (g *guarded) Thaw() {
	if len(g.Others()) == 0 {
		g.Signal(syscall.SIGCONT)
	}
	supervise.Thaw(g.frozen)
	g.frozen = nil
	g.group().freeze(false)
}

// Kill kills the guard with all the rest, as it may be stopped, and the group last: see warden.kill.
func (g *guarded) Kill() {
	g.tree.Kill()
	g.group().kill()
}

func (g *guarded) Others() []supervise.Process {
	var others []supervise.Process
	for _, p := range supervise.Descendants() {
		if p.PID != g.tree.PID() {
			others = append(others, p)
		}
	}
	return others
}

// Close ends the guard. What it has adopted falls to this process.
func (g *guarded) Close() {
	g.tree.Signal(syscall.SIGKILL)
	select {
	case e := <-g.tree.Exited():
		if !e.Status.Exited() {
			g.group().remove()
		}
	case <-time.After(supervise.Patience): // a debugger holds it
	}
	g.tree.Close()
	g.conn.close()
	if g.pidfd >= 0 {
		syscall.Close(g.pidfd)
	}
}
