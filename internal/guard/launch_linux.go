package guard

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Exists says whether there are guards on this system.
const Exists = true

// A Launched is a guard process that was given no command yet.
type Launched struct {
	lacks error // what the kernel refuses to a guard
	conn  *conn
	pid   int
	mask  uint64 // the signals that the command has blocked
	err   error
	taken bool
}

// Launch starts a guard. The guard is executed with args, which are our own words: Command says
// which of them are the command's.
func Launch(args []string) *Launched {
	l := &Launched{lacks: lacksTimers()}
	l.launch(append([]string{Name}, args[1:]...))
	return l
}

// lacksTimers tries, before the guard needs them, whether the kernel gives it its timers. It may
// still refuse them later.
func lacksTimers() error {
	var a alarms
	defer a.close()
	if err := a.prepare(); err != nil {
		return because{ErrNoTimers, err}
	}
	return nil
}

// Lacks returns ErrNoTimers if the kernel refused the timers that a guard needs, when it was
// launched.
func (l *Launched) Lacks() error {
	if l == nil {
		return nil
	}
	return l.lacks
}

func (l *Launched) launch(args []string) {
	var theirs int
	if l.conn, theirs, l.err = newChannel(); l.err != nil {
		l.err = os.NewSyscallError("a channel to the guard process", l.err)
		return
	}
	defer syscall.Close(theirs)
	slack, restore := lazyWatch()
	defer restore()
	attr := &syscall.ProcAttr{
		Env:   append(guardEnvironment(environ(), theirs), slackNumber+strconv.Itoa(int(slack))),
		Files: []uintptr{0, 1, 2},
		// Nothing typed on the terminal is for the guard. If our group has no number here (it comes
		// from outside of our pid namespace), the only way for the command to get into it is to
		// inherit it: then the guard leaves later.
		//
		// A guard that is stopped goes on when this process dies. The kernel continues one that has
		// stopped before, and not one that is about to.
		Sys: &syscall.SysProcAttr{Setpgid: syscall.Getpgrp() != 0, Pdeathsig: syscall.SIGCONT},
	}
	// A SIGTSTP to our group would stop it on its way to a group of its own, where nobody continues
	// it, and this process waits until it is executed.
	l.mask = kernel.Unsignaled(func() { l.pid, l.err = syscall.ForkExec(self, args, attr) })
	if l.err != nil {
		l.conn.close()
		l.err = os.NewSyscallError("starting the guard process from "+self, l.err)
	}
}

// watchSlack is how much later than it asks the thread may wake up that watches over a guard's
// other threads. Go's runtime has it look every 20 µs while anything is done, and for a
// millisecond more, which was a tenth of all that a guard does. What it is for, that a thread is
// taken for one that waits in the kernel, can come so much later.
const watchSlack = time.Millisecond

// lazyWatch gives the calling thread that slack, for the guard that it starts, and returns what it
// had, until restore is called. The guard takes it back for all other threads, and for the command:
// by then Go has started that one.
func lazyWatch() (had time.Duration, restore func()) {
	runtime.LockOSThread()
	if had = kernel.TimerSlack(); had > 0 {
		kernel.SetTimerSlack(watchSlack)
	}
	return had, func() {
		if had > 0 {
			kernel.SetTimerSlack(had)
		}
		runtime.UnlockOSThread()
	}
}

// self is this program, even if its file was replaced or deleted.
const self = "/proc/self/exe"

// Command gives the guard the program at path to run, with the words from first on, before which
// another one can be put, and waits until the guard is there. From then on every child of this
// process is reaped here, and nothing else in the process may wait for a child of its own.
func (l *Launched) Command(path, interpreter string, first int) (Command, error) {
	if l.err != nil {
		return nil, l.err
	}
	tree, err := supervise.Watch(l.pid)
	if err != nil {
		return nil, err
	}
	l.taken = true
	g := &guarded{
		tree:        tree,
		conn:        l.conn,
		path:        path,
		interpreter: interpreter,
		first:       first,
		mask:        l.mask,
		pidfd:       -1,
		sent:        newTestimony(),
		started:     make(chan beginning, 1),
		exited:      make(chan supervise.Exit, 2),
		stopped:     make(supervise.Latest, 1),
		heard:       make(chan struct{}),
	}
	go g.listen()
	return g, nil
}

// Close ends a guard that was given no command.
func (l *Launched) Close() {
	if l == nil || l.err != nil || l.taken {
		return
	}
	l.taken = true
	defer l.conn.close()
	defer l.removeGroup()
	syscall.Kill(l.pid, syscall.SIGKILL)
	// One that a debugger holds is not reported.
	for begun := time.Now(); time.Since(begun) < supervise.Patience; time.Sleep(time.Millisecond) {
		if pid, err := syscall.Wait4(l.pid, nil, syscall.WNOHANG, nil); pid != 0 && err != syscall.EINTR {
			return
		}
	}
}

// removeGroup removes the control group that the guard, which has ended, made for a command. It may
// not have said so yet.
func (l *Launched) removeGroup() {
	if m, _, err := l.conn.receive(); err == nil && kind(m[0]) == ready {
		cgroup.Open(string(m[1:])).Remove()
	} else {
		cgroup.RemoveMade(groupsOf(os.Getpid()))
	}
}

// groupsOf is what the names of the control groups of an etcdlocker go on with.
func groupsOf(pid int) string { return strconv.Itoa(pid) + "-" }

// newChannel returns our end of a channel to a guard, and the descriptor of the other end, which
// blocks and is inherited: the command inherits no descriptor of that number.
func newChannel() (ours *conn, theirs int, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, err
	}
	defer syscall.Close(fds[1])
	if ours, err = newConn(fds[0]); err != nil {
		return nil, -1, err
	}
	if theirs, err = syscall.Dup(fds[1]); err != nil {
		ours.close()
	}
	return ours, theirs, err
}
