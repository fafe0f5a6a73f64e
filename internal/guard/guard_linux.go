package guard

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// errGone says that the guard has ended before it was told to.
var errGone = errors.New("the guard process has ended")

// A guarded command is seen from etcdlocker: the guard is its child, and so is whatever the guard may leave.
type guarded struct {
	tree  *supervise.Tree // with the guard at its root
	conn  *conn
	pidfd int // of the command; negative before the start
	pid   int

	frozen []supervise.Process

	started chan error
	exited  chan supervise.Exit
}

// New starts the guard of a command. From then on every child of this process is reaped here, and nothing else in the
// process may wait for a child of its own.
func New(path string, args []string) (Command, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("a channel to the guard process: %w", err)
	}
	defer unix.Close(fds[1])
	conn, err := newConn(fds[0])
	if err != nil {
		return nil, fmt.Errorf("a channel to the guard process: %w", err)
	}
	g := &guarded{conn: conn, pidfd: -1, started: make(chan error, 1), exited: make(chan supervise.Exit, 2)}
	g.tree, err = supervise.Start(supervise.Command{
		Path:       "/proc/self/exe", // works even if the file was replaced or deleted
		Args:       append([]string{Name, path}, args...),
		Env:        os.Environ(),
		Files:      []uintptr{0, 1, 2, uintptr(fds[1])},
		Attributes: &syscall.SysProcAttr{},
	})
	if err != nil {
		conn.close()
		return nil, fmt.Errorf("starting the guard process: %w", err)
	}
	go g.listen()
	return g, nil
}

// listen hears what the guard says, until it is gone.
func (g *guarded) listen() {
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
		case started:
			g.pid, g.pidfd = int(a), fd
			g.started <- nil
		case failed:
			g.started <- syscall.Errno(a)
		case exited:
			g.exited <- supervise.Exit{Status: syscall.WaitStatus(a), Left: b != 0}
		}
	}
	select {
	case g.started <- errGone:
	default:
	}
	g.exited <- supervise.Exit{Status: syscall.WaitStatus(unix.SIGKILL), Left: true, Unguarded: true}
}

func (g *guarded) Start(validUntil boottime.Instant, lease int64, env []string) error {
	o := order{validUntil: validUntil, lease: lease, pgid: unix.Getpgrp(), env: env}
	if err := g.conn.send(o.message(start), -1); err != nil {
		return fmt.Errorf("telling the guard process: %w", err)
	}
	timer := time.NewTimer(validUntil.Until()) // a suspend meanwhile is the guard's business
	defer timer.Stop()
	err := errors.New("the guard process did not start it in time")
	select {
	case err = <-g.started:
	case <-timer.C:
	}
	if err == nil {
		return nil
	}
	life := supervise.NewLife(g)
	life.Expired(time.Now())
	supervise.Drive(life, g, supervise.Events{})
	if life.Undead {
		return fmt.Errorf("%w: %w", ErrUndead, err)
	}
	return err
}

func (g *guarded) Extend(validUntil boottime.Instant) {
	g.conn.send(order{validUntil: validUntil}.message(extend), -1)
}

func (g *guarded) PID() int                      { return g.pid }
func (g *guarded) Exited() <-chan supervise.Exit { return g.exited }

// Empty is closed when the guard is gone, too: it goes when nothing is left below it, and what it may leave when it is
// killed falls to this process.
func (g *guarded) Empty() <-chan struct{} { return g.tree.Empty() }

func (g *guarded) Signal(sig syscall.Signal) {
	unix.PidfdSendSignal(g.pidfd, sig, nil, 0)
}

func (g *guarded) Terminate() {
	others := g.Others()
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGCONT} {
		for _, p := range others {
			p.Signal(sig)
		}
		if len(others) == 0 {
			g.Signal(sig) // /proc shows nothing
		}
	}
}

func (g *guarded) Freeze() {
	if !g.group().freeze(true) {
		g.frozen = supervise.Freeze(g.Others)
	}
}

func (g *guarded) Thaw() {
	g.group().freeze(false)
	supervise.Thaw(g.frozen)
	g.frozen = nil
}

// Kill kills the guard with all the rest: it may be stopped.
func (g *guarded) Kill() {
	g.group().kill()
	g.tree.Kill()
}

// group returns the control group of the command, if it may have one.
func (g *guarded) group() *cgroup {
	dir, err := cgroupOf(g.tree.PID())
	if err != nil {
		return &cgroup{}
	}
	return &cgroup{dir: dir}
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
	g.tree.Signal(unix.SIGKILL)
	if e := <-g.tree.Exited(); !e.Status.Exited() {
		g.group().remove()
	}
	g.tree.Close()
	g.conn.close()
	if g.pidfd >= 0 {
		unix.Close(g.pidfd)
	}
}
