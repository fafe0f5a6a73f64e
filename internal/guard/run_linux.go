package guard

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// settleAfter is how long the command has to last before it gets a control group, which costs as much as all the rest of
// the guard.
const settleAfter = 100 * time.Millisecond

// A warden is a guard at work. One thread, the main one, starts the command and waits for what ends below it; everything
// else is done by goroutines beside it.
type warden struct {
	socket int      // our end of the channel
	alarms alarms   // for when this process is stopped
	env    []string // of the command, but for what comes with the order

	pid, pidfd int // of the command; the descriptor is negative where there are none
	checker    int // the process id of what runs checks; 0: there is none
	group      cgroup
	ending     sync.Once
	alone      atomic.Bool // etcdlocker is gone
}

// run is the guard. It belongs to the main thread, as the command's death signal goes by the thread that started it.
func run() int {
	socket, ok := enter(Name)
	if !ok {
		return 1
	}
	// All that can be done before the lock is there.
	w := &warden{socket: socket, alarms: newAlarms(), env: commandEnvironment(os.Environ()), pidfd: -1}
	o, err := awaitStart(socket)
	if err != nil {
		return 0 // etcdlocker did not get the lock, or is gone
	}
	return w.guard(o)
}

// awaitStart waits for the order to start. The end of validity may move before.
func awaitStart(socket int) (o Order, err error) {
	buf := make([]byte, maxMessage)
	for at := boottime.Instant(0); ; at = o.ValidUntil {
		n, channel, err := receiveFrom(socket, buf, 0) // the command inherits the descriptor
		if err != nil {
			return Order{}, errGone
		}
		if o, err = parseOrder(buf[:n]); err != nil {
			return Order{}, err
		}
		o.ValidUntil = max(at, o.ValidUntil)
		if kind(buf[0]) == start {
			o.Channel = channel
			return o, nil
		}
	}
}

// guard runs the command and looks after it until nothing is left.
func (w *warden) guard(o Order) int {
	w.alarms.set(o.ValidUntil) // before there is a command that could outlive a guard that is stopped
	if err := w.start(o); err != nil {
		return w.refuse(err)
	}
	// What goes to everything that is called like etcdlocker is not for the guard: if it died of that, the command would be
	// killed instead of being asked to end. It starts nothing more that could inherit this.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	moved := make(chan boottime.Instant)
	go w.listen(moved)
	go w.keep(o.ValidUntil, moved)
	time.AfterFunc(settleAfter, func() { w.group.gather(o.Lease) })
	w.reap()
	w.group.remove()
	if w.alone.Load() {
		attest(o.Lease) // for whoever waits; without it that one waits for the lease to run out
	}
	return 0
}

// start starts the command, unless there is no time left for it.
func (w *warden) start(o Order) (err error) {
	if o.By.Until() <= 0 {
		return syscall.ETIME
	}
	if o.first >= len(os.Args) {
		return syscall.EINVAL
	}
	w.env = environment(w.env, o.Env)
	if o.Checks {
		if err := w.startChecker(o.Channel); err != nil {
			return err
		}
		o.Channel = 0
	}
	if o.Channel > 0 {
		defer syscall.Close(o.Channel) // or it would stay open when the command has closed it
	}
	if err := sendTo(w.socket, numbers(begun, 0, 0), -1); err != nil {
		return err
	}
	w.pid, err = syscall.ForkExec(o.path, withInterpreter(o.interpreter, os.Args[o.first:]), &syscall.ProcAttr{
		Env:   withChannel(w.env, o.Channel),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: o.pgid != 0, Pgid: o.pgid, PidFD: &w.pidfd},
	})
	if err != nil {
		return err
	}
	if o.pgid == 0 {
		syscall.Setpgid(0, 0) // the command has inherited the group, and now the guard leaves it
	}
	sendTo(w.socket, numbers(started, uint64(w.pid), 0), w.pidfd)
	return nil
}

// refuse says why the command was not started.
func (w *warden) refuse(err error) int {
	sendTo(w.socket, numbers(failed, uint64(errnoOf(err)), 0), -1)
	w.endChecker()
	return 0
}

// errnoOf returns the number of an error, 0 for none.
func errnoOf(err error) (errno syscall.Errno) {
	if err != nil && !errors.As(err, &errno) {
		return syscall.EINVAL
	}
	return errno
}

// reap waits for everything that ends below the guard, reports how the command ended, and returns when the kernel says that
// nothing is left.
func (w *warden) reap() {
	pid, status, left := w.wait(0)
	for left && pid != w.pid {
		pid, status, left = w.wait(0)
	}
	w.endChecker()
	// Whether it has left something is known when all that have ended as well are out of the way.
	for pid, left = -1, true; left && pid != 0; {
		pid, _, left = w.wait(syscall.WNOHANG)
	}
	w.report(status, left)
	for left {
		_, _, left = w.wait(0)
	}
}

// wait waits for a process to end, and reports whether there are any. On the way it tells etcdlocker when the command stops
// and goes on.
func (w *warden) wait(options int) (pid int, status syscall.WaitStatus, left bool) {
	for {
		err := kernel.Uninterrupted(func() (err error) {
			pid, err = syscall.Wait4(-1, &status, options|syscall.WUNTRACED|syscall.WCONTINUED, nil)
			return err
		})
		if pid <= 0 || !status.Stopped() && !status.Continued() {
			if pid > 0 && pid == w.checker {
				w.checker = 0
			}
			return pid, status, err == nil
		}
		if pid == w.pid {
			sendTo(w.socket, numbers(stopped, flag(status.Stopped()), 0), -1)
		}
	}
}

// report tells etcdlocker how the command ended, and whether something of it is left.
func (w *warden) report(status syscall.WaitStatus, left bool) {
	sendTo(w.socket, numbers(exited, uint64(status), flag(left)), -1)
}

// listen takes orders until etcdlocker is gone.
func (w *warden) listen(moved chan<- boottime.Instant) {
	c, err := newConn(w.socket)
	for err == nil {
		var m []byte
		if m, _, err = c.receive(); err == nil {
			if o, err := parseOrder(m); err == nil {
				moved <- o.ValidUntil
			}
		}
	}
	w.alone.Store(true)
	w.end()
}

// newsWithin is for how long a guard that has been stopped, and finds that validity has ended, looks for what it was told
// meanwhile. Both come to it at the same moment.
const newsWithin = 5 * time.Millisecond

// keep watches over the end of validity. What has once been ended is not taken back.
func (w *warden) keep(at boottime.Instant, moved <-chan boottime.Instant) {
	timer := boottime.NewTimer()
	for {
		timer.Reset(at.Add(-newsWithin))
		select {
		case at = <-moved:
			w.alarms.set(at)
			continue
		case <-timer.C:
		}
		if at.Add(-newsWithin).Until() > 0 {
			continue
		}
		select {
		case at = <-moved:
			w.alarms.set(at)
			continue
		case <-time.After(newsWithin):
		}
		select {
		case at = <-moved: // both had come
			w.alarms.set(at)
		default:
			w.alarms.spare()
			w.end()
			for range moved {
			}
		}
	}
}

// end has everything killed.
func (w *warden) end() { w.ending.Do(func() { go w.kill() }) }

// kill kills everything again and again, as processes fork meanwhile, until reap has found that nothing is left. What does
// not die is etcdlocker's to report, if there is one.
func (w *warden) kill() {
	for begun := time.Now(); ; time.Sleep(supervise.KillEvery) {
		for _, p := range supervise.Descendants() {
			p.Signal(syscall.SIGKILL)
		}
		if w.pidfd >= 0 {
			kernel.PidfdSignal(w.pidfd, syscall.SIGKILL) // also where /proc shows nothing
		}
		w.group.kill() // last: it waits for whatever else the machine does with groups
		if time.Since(begun) > supervise.Patience {
			time.Sleep(supervise.Patience) // stuck in the kernel, or somebody else's: there is no hurry any more
		}
	}
}
