package guard

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// socket is the guard's end of the socket pair.
const socket = 3

// lastResort is how long after the end of validity the kernel kills a guard that has not acted: less than the margin that
// is kept before the lease can run out.
const lastResort = 100 * time.Millisecond

// settleAfter is how long the guard and the command have to last before they get what a short command does well without: a
// control group costs as much as all the rest of the guard.
const settleAfter = 100 * time.Millisecond

// A warden is a guard at work.
type warden struct {
	conn  *conn
	alone atomic.Bool   // etcdlocker is gone
	over  chan struct{} // closed when everything is to be killed
	once  sync.Once
	moved chan boottime.Instant // the end of validity has moved
}

// run is the guard. It belongs to the main thread, as the command's death signal goes by the thread that started it.
func run(path string, args []string) int {
	unix.CloseOnExec(socket)
	// A group of its own, so that nothing typed on the terminal reaches it.
	if err := errors.Join(unix.Setpgid(0, 0), unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); err != nil {
		return 1
	}
	setName(Name)
	time.AfterFunc(settleAfter, catchSignals)
	conn, err := newConn(socket)
	if err != nil {
		return 1
	}
	w := &warden{conn: conn, over: make(chan struct{}), moved: make(chan boottime.Instant)}
	for at := boottime.Instant(0); ; {
		m, _, err := w.conn.receive()
		if err != nil {
			return 0 // etcdlocker did not get the lock, or is gone
		}
		o, err := parseOrder(m)
		if err != nil {
			return 1
		}
		at = max(at, o.validUntil)
		if kind(m[0]) == start {
			o.validUntil = at
			return w.guard(o, path, args)
		}
	}
}

// guard runs the command and looks after it until nothing is left.
func (w *warden) guard(o order, path string, args []string) int {
	last := newAlarm() // before there is a command that could outlive a guard that is stopped
	last.set(o.validUntil.Add(lastResort))
	tree, err := w.start(o, path, args)
	if err != nil {
		return w.refuse(err)
	}
	go w.listen()
	go w.keep(o.validUntil, last)
	life := supervise.NewLife(tree)
	life.Orphans = supervise.AwaitOrphans // what becomes of them is etcdlocker's decision
	group := &cgroup{}
	defer group.remove()
	defer time.AfterFunc(settleAfter, group.gather).Stop()
	supervise.Drive(life, &reporter{tree, group, w.report(tree)}, supervise.Events{Expired: w.over})
	if life.Undead {
		return 1
	}
	if w.alone.Load() {
		attest(o.lease) // for whoever waits; without it that one waits for the lease to run out
	}
	return 0
}

// start starts the command, unless there is no time left for it.
func (w *warden) start(o order, path string, args []string) (*supervise.Tree, error) {
	if o.validUntil.Until() <= 0 {
		return nil, unix.ETIME
	}
	pidfd := -1
	tree, err := supervise.Start(supervise.Command{Path: path, Args: args, Env: environment(os.Environ(), o.env), Attributes: &syscall.SysProcAttr{
		Pdeathsig: unix.SIGKILL,
		Setpgid:   true,
		Pgid:      o.pgid,
		PidFD:     &pidfd,
	}})
	if err != nil {
		return nil, err
	}
	w.conn.send(numbers(started, uint32(tree.PID()), 0), pidfd)
	unix.Close(pidfd)
	return tree, nil
}

// refuse says why the command was not started.
func (w *warden) refuse(err error) int {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = unix.EINVAL
	}
	w.conn.send(numbers(failed, uint32(errno), 0), -1)
	return 0
}

// end has everything killed.
func (w *warden) end() { w.once.Do(func() { close(w.over) }) }

// listen takes orders until etcdlocker is gone.
func (w *warden) listen() {
	for {
		m, _, err := w.conn.receive()
		if err != nil {
			w.alone.Store(true)
			w.end()
			return
		}
		if o, err := parseOrder(m); err == nil {
			w.moved <- o.validUntil
		}
	}
}

// keep watches over the end of validity. What has once been ended is not taken back.
func (w *warden) keep(at boottime.Instant, last *alarm) {
	timer := boottime.NewTimer()
	for {
		timer.Reset(at)
		select {
		case at = <-w.moved:
			last.set(at.Add(lastResort))
		case <-timer.C:
			if at.Until() <= 0 {
				last.set(0)
				w.end()
				for range w.moved {
				}
			}
		}
	}
}

// report tells etcdlocker how the command ended, and passes it on.
func (w *warden) report(tree *supervise.Tree) <-chan supervise.Exit {
	told := make(chan supervise.Exit, 1)
	go func() {
		e := <-tree.Exited()
		left := uint32(0)
		if e.Left {
			left = 1
		}
		w.conn.send(numbers(exited, uint32(e.Status), left), -1)
		told <- e
	}()
	return told
}

// A reporter is a tree whose end has been reported when it becomes known.
type reporter struct {
	*supervise.Tree
	group *cgroup
	told  <-chan supervise.Exit
}

func (r *reporter) Kill() {
	r.group.kill()
	r.Tree.Kill()
}

func (r *reporter) Exited() <-chan supervise.Exit { return r.told }

// catchSignals keeps the guard alive when signals go to everything that is called like etcdlocker: if it died of them, the
// command would be killed instead of being asked to end. Caught signals are
// back to their default in the command; what was ignored stays so for both.
func catchSignals() {
	c := make(chan os.Signal, 1) // nobody listens
	for _, sig := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2} {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
}

// setName names the process as ps and killall see it.
func setName(name string) {
	if b, err := unix.BytePtrFromString(name[:min(len(name), 15)]); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(b)), 0, 0, 0)
	}
}
