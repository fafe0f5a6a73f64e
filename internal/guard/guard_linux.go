package guard

import (
	"context"
	"errors"
	"os"
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

// A Launched is a guard process that was given no command yet.
type Launched struct {
	ready chan struct{} // closed when the rest is set
	conn  *conn
	pid   int
	err   error
	taken bool
}

// Launch starts a guard, and does not wait for that. The guard is executed with args, which are our own words: Command says
// which of them are the command's.
func Launch(args []string) *Launched {
	l := &Launched{ready: make(chan struct{})}
	go func() {
		defer close(l.ready)
		l.launch(append([]string{Name}, args[1:]...))
	}()
	return l
}

func (l *Launched) launch(args []string) {
	var theirs int
	if l.conn, theirs, l.err = newChannel(); l.err != nil {
		l.err = os.NewSyscallError("a channel to the guard process", l.err)
		return
	}
	defer syscall.Close(theirs)
	l.pid, l.err = syscall.ForkExec(self, args, &syscall.ProcAttr{
		Env:   guardEnvironment(os.Environ(), theirs),
		Files: []uintptr{0, 1, 2},
		// Nothing typed on the terminal is for the guard. If our group has no number here (it comes from outside of our pid
		// namespace), the only way for the command to get into it is to inherit it: then the guard leaves later.
		Sys: &syscall.SysProcAttr{Setpgid: syscall.Getpgrp() != 0},
	})
	if l.err != nil {
		l.conn.close()
		l.err = os.NewSyscallError("starting the guard process from "+self, l.err)
	}
}

// self is this program, even if its file was replaced or deleted.
const self = "/proc/self/exe"

// Ready waits until the guard has been started.
func (l *Launched) Ready() {
	if l != nil {
		<-l.ready
	}
}

// Command gives the guard the program at path to run, with the words from first on, and waits until the guard is there.
// From then on every child of this process is reaped here, and nothing else in the process may wait for a child of its own.
func (l *Launched) Command(path string, first int) (Command, error) {
	<-l.ready
	if l.err != nil {
		return nil, l.err
	}
	tree, err := supervise.Watch(l.pid)
	if err != nil {
		return nil, err
	}
	l.taken = true
	g := &guarded{
		tree:    tree,
		conn:    l.conn,
		path:    path,
		first:   first,
		pidfd:   -1,
		started: make(chan beginning, 1),
		exited:  make(chan supervise.Exit, 2),
		stopped: make(supervise.Latest, 1),
		heard:   make(chan struct{}),
	}
	go g.listen()
	return g, nil
}

// Close ends a guard that was given no command.
func (l *Launched) Close() {
	if l.Ready(); l == nil || l.err != nil || l.taken {
		return
	}
	l.taken = true
	l.conn.close()
	syscall.Kill(l.pid, syscall.SIGKILL)
	// One that a debugger holds is not reported.
	for begun := time.Now(); time.Since(begun) < supervise.Patience; time.Sleep(time.Millisecond) {
		if pid, err := syscall.Wait4(l.pid, nil, syscall.WNOHANG, nil); pid != 0 && err != syscall.EINTR {
			return
		}
	}
}

// A guarded command is seen from etcdlocker: the guard is its child, and so is whatever the guard may leave.
type guarded struct {
	tree  *supervise.Tree // with the guard at its root
	conn  *conn
	path  string
	first int
	lease int64
	pid   int // of the command
	pidfd int // of the command; negative before the start, and where there are none

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

// newChannel returns our end of a channel to a guard, and the descriptor of the other end, which blocks and is inherited: its
// number is none of those that the command inherits.
func newChannel() (ours *conn, theirs int, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	defer syscall.Close(fds[1])
	if err = syscall.SetNonblock(fds[0], true); err == nil {
		ours, err = newConn(fds[0])
	}
	if err != nil {
		return nil, -1, err
	}
	if theirs, err = syscall.Dup(fds[1]); err != nil {
		ours.close()
	}
	return ours, theirs, err
}

// listen hears what the guard says, until it is gone.
func (g *guarded) listen() {
	defer close(g.heard)
	for {
		m, fd, err := g.conn.receiveWithDescriptor()
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

func (g *guarded) Start(ctx context.Context, by, validUntil boottime.Instant, lease int64, env []string) error {
	g.lease = lease
	o := order{by: by, validUntil: validUntil, lease: lease, pgid: syscall.Getpgrp(), first: g.first, path: g.path, env: env}
	err := g.conn.send(o.message(start))
	if err == syscall.EPIPE || err == syscall.ECONNRESET {
		err = errGone
	}
	if err == nil {
		err = g.await(ctx, min(by, boottime.Now().Add(answerWithin)))
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
	g.conn.send(order{validUntil: validUntil}.message(extend))
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

// Kill kills the guard with all the rest: it may be stopped.
func (g *guarded) Kill() {
	g.group().kill()
	g.tree.Kill()
}

// group returns the control group of the command, if it may have one.
func (g *guarded) group() *cgroup {
	group, err := cgroupOf(g.lease)
	if err != nil {
		return &cgroup{}
	}
	return group
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
