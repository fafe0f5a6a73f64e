package guard

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/sched"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// settleAfter is how long the command has to last before the guard does what a short one can do
// without.
const settleAfter = 100 * time.Millisecond

// A warden is a guard at work. One thread, the main one, starts the command and waits for what ends below it; everything
// else is done by goroutines beside it.
type warden struct {
	socket int           // our end of the channel
	alarms alarms        // for when this process is stopped
	group  *cgroup.Group // in which the command is born; nil: there is none
	own    sched.Policy  // of this process
	given  sched.Policy  // that this process was started with
	env    []string      // of the command, but for what comes with the order
	wakeUp time.Duration // measured while there was no order

	pid, pidfd int // of the command; the descriptor is negative where there are none
	checker    int // the process id of what runs checks; 0: there is none
	reaping    sync.Mutex
	told       Measure     // that etcdlocker was told last
	held       atomic.Bool // etcdlocker has the command stand still
	killer     *supervise.Killer
	ending     sync.Once
	alone      atomic.Bool // etcdlocker is gone
}

// run is the guard. It belongs to the main thread, as the command's death signal goes by the thread that started it.
func run() int {
	socket, ok := enter(Name)
	if !ok {
		return 1
	}
	w := &warden{socket: socket, env: commandEnvironment(os.Environ()), pidfd: -1}
	w.prepare()
	o, err := w.awaitStart()
	if err == nil { // else etcdlocker did not get the lock, or is gone
		w.guard(o)
	}
	w.group.Remove()
	if w.alone.Load() {
		attest(o.Lease) // for whoever waits; without it that one waits for the lease to run out
	}
	return 0
}

// prepare does all that can be done before the lock is there. What is not possible has to do without,
// but for the alarms: see guard.
func (w *warden) prepare() {
	w.alarms.prepare()
	w.given, _ = sched.Inherited()
	if w.own = w.given; w.given.RealTime() { // once the command runs, it may be too late
		w.raise()
	}
	// The number that etcdlocker has may be another one's, in another pid namespace.
	group, err := cgroup.Make(strconv.Itoa(os.Getppid()) + "-" + hex(int64(rand.Uint32())))
	if err == nil {
		w.group = group
		sendTo(w.socket, append([]byte{byte(ready)}, group.Path()...), -1)
	}
}

// awaitStart waits for the order to start. The end of validity may move before.
func (w *warden) awaitStart() (o Order, err error) {
	// A look at how long it takes to wake up, unless there is something to do.
	const probe = time.Millisecond
	before := boottime.Now()
	if !kernel.Readable(w.socket, probe) {
		w.wakeUp = boottime.Now().Sub(before) - probe
	}
	buf := make([]byte, maxMessage)
	for at := boottime.Instant(0); ; {
		n, channel, err := receiveFrom(w.socket, buf, 0) // the command inherits the descriptor
		if err != nil {
			return Order{}, errGone
		}
		switch m := buf[:n]; kind(m[0]) {
		case extend:
			until, sent, err := parseNumbers(m)
			if err != nil {
				return Order{}, err
			}
			at = max(at, boottime.Instant(until))
			w.wakeUp = boottime.Now().Sub(boottime.Instant(sent))
		case start:
			o, err := parseOrder(m)
			o.ValidUntil, o.Channel = max(at, o.ValidUntil), channel
			return o, err
		default:
			return Order{}, errGone
		}
	}
}

// guard runs the command and looks after it until nothing is left.
func (w *warden) guard(o Order) {
	if err := w.alarms.prepare(); err != nil && !o.NoTimers {
		w.refuse(err, cannotAlarm)
		return
	}
	w.alarms.set(o.ValidUntil) // before there is a command that could outlive a guard that is stopped
	if why, err := w.start(o); err != nil {
		w.refuse(err, why)
		return
	}
	// What goes to everything that is called like etcdlocker is not for the guard: if it died of that, the command would be
	// killed instead of being asked to end. It starts nothing more that could inherit this.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	w.killer = supervise.NewKiller(w.group, &w.reaping, 0)
	moved, continued := make(chan boottime.Instant), make(chan os.Signal, 1)
	go w.listen(moved)
	go w.keep(o.ValidUntil, moved, continued)
	time.AfterFunc(settleAfter, func() { w.settle(continued) })
	w.reap()
}

// settle does what a short command can do without.
func (w *warden) settle(continued chan os.Signal) {
	if !w.given.RealTime() {
		w.raise()
	}
	w.killer.Prepare()
	kernel.LockMemory()
	signal.Notify(continued, syscall.SIGCONT)
	select {
	case continued <- syscall.SIGCONT: // it may have come before
	default:
	}
	w.group.Sweep()
}

// raise has this process run before the command where that is allowed, and as soon as possible
// elsewhere.
func (w *warden) raise() {
	if above := w.given.Above(); above.Raise() {
		w.own = above
	} else {
		sched.ShortSlices()
	}
}

// start starts the command, unless there is no time left for it.
func (w *warden) start(o Order) (why uint64, err error) {
	if o.By.Until() <= 0 {
		return tooLateToStart, syscall.ETIME
	}
	if o.first >= len(os.Args) {
		return cannotExecute, syscall.EINVAL
	}
	if w.given, err = w.given.Below(w.own); err != nil {
		return cannotBeBelow, err
	}
	w.env = environment(w.env, o.Env)
	if o.Checks {
		if err := w.startChecker(o.Channel); err != nil {
			return cannotExecute, err
		}
		o.Channel = 0
	}
	if o.Channel > 0 {
		defer syscall.Close(o.Channel) // or it would stay open when the command has closed it
	}
	if err := sendTo(w.socket, numbers(begun, 0, 0), -1); err != nil {
		return cannotExecute, err
	}
	w.pid, err = w.fork(o.path, withInterpreter(o.interpreter, os.Args[o.first:]), withChannel(w.env, o.Channel),
		&syscall.SysProcAttr{Setpgid: o.pgid != 0, Pgid: o.pgid, PidFD: &w.pidfd})
	if err != nil {
		return cannotExecute, err
	}
	if o.pgid == 0 {
		syscall.Setpgid(0, 0) // the command has inherited the group, and now the guard leaves it
	}
	sendTo(w.socket, numbers(started, uint64(w.pid), uint64(w.wakeUp)), w.pidfd)
	return 0, nil
}

// fork starts a process in the control group, which dies with this thread, under the policy that the
// guard was started with.
func (w *warden) fork(path string, args, env []string, sys *syscall.SysProcAttr) (pid int, err error) {
	sys.Pdeathsig = syscall.SIGKILL
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys}
	if w.given != w.own {
		// This thread, which reaps, stays there. The kernel makes it wait, without sleeping, while the
		// command has to do with an entry in /proc, and for that the command must get the processor.
		// Besides, the thread may not be allowed to go back.
		w.given.SetThread()
	}
	if fd, ok := w.group.FD(); ok {
		sys.UseCgroupFD, sys.CgroupFD = true, fd
		if pid, err = syscall.ForkExec(path, args, attr); err == nil {
			return pid, nil
		}
		// Where clone3 is refused, it is a fork as ever. Nothing has been executed.
		sys.UseCgroupFD = false
	}
	return syscall.ForkExec(path, args, attr)
}

// refuse says why the command was not started.
func (w *warden) refuse(err error, why uint64) {
	sendTo(w.socket, numbers(failed, uint64(errnoOf(err)), why), -1)
	w.endChecker()
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
		if options&syscall.WNOHANG == 0 && kernel.Uninterrupted(kernel.AwaitChild) != nil {
			return 0, 0, false
		}
		if pid, status, left = w.collect(); pid > 0 && (status.Stopped() || status.Continued()) {
			if pid == w.pid {
				sendTo(w.socket, numbers(stopped, flag(status.Stopped()), 0), -1)
			}
			continue
		}
		if pid == 0 && left && options&syscall.WNOHANG == 0 {
			continue
		}
		if pid > 0 && pid == w.checker {
			w.checker = 0
		}
		return pid, status, left
	}
}

// collect takes what one process has to tell, if one has, and reports whether there are any.
func (w *warden) collect() (pid int, status syscall.WaitStatus, left bool) {
	w.reaping.Lock()
	defer w.reaping.Unlock()
	err := kernel.Uninterrupted(func() (err error) {
		pid, err = syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WUNTRACED|syscall.WCONTINUED, nil)
		return err
	})
	return pid, status, err == nil
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
		if m, _, err = c.receive(); err != nil {
			break
		}
		switch a, b, err := parseNumbers(m); {
		case err != nil: // it is not for a guard whose command has started
		case kind(m[0]) == extend:
			moved <- boottime.Instant(a)
			w.measure(boottime.Now().Sub(boottime.Instant(b)))
		case kind(m[0]) == hold:
			w.held.Store(a != 0)
		case kind(m[0]) == end:
			w.end()
		}
	}
	w.alone.Store(true)
	w.end()
}

// measure tells etcdlocker what it would take to kill everything. When that was asked for, this
// process had to wake up as it has to at the end of validity.
func (w *warden) measure(wakeUp time.Duration) {
	begun := boottime.Now()
	processes := len(w.group.Members())
	if processes == 0 {
		processes = len(supervise.Descendants())
	}
	m := Measure{wakeUp, boottime.Now().Sub(begun), processes}
	if m.isLike(w.told) {
		return // to answer means to wake up once more, when the answer is read
	}
	w.told = m
	sendTo(w.socket, m.message(), -1)
}

// isLike reports whether two measures make no difference to the margin.
func (m Measure) isLike(other Measure) bool {
	const some, few = time.Millisecond, 20
	return m.WakeUp/some == other.WakeUp/some && m.Walk/some == other.Walk/some && m.Processes/few == other.Processes/few
}

// newsWithin is for how long a guard that has been stopped, and finds that validity has ended, looks for what it was told
// meanwhile. Both come to it at the same moment.
const newsWithin = 5 * time.Millisecond

// keep watches over the end of validity. What has once been ended is not taken back.
func (w *warden) keep(at boottime.Instant, moved <-chan boottime.Instant, continued <-chan os.Signal) {
	timer := boottime.NewTimer()
	for {
		timer.Reset(at.Add(-newsWithin))
		select {
		case at = <-moved:
			w.alarms.set(at)
		case <-continued:
			// An etcdlocker above this one has let all of us go on, but for the command: see cgroup.Thaw.
			if at.Until() > newsWithin && w.group.Frozen() {
				go w.thaw()
			}
		case <-timer.C:
			if at.Add(-newsWithin).Until() > 0 {
				continue
			}
			later, news := w.lookForNews(at, moved)
			if !news {
				w.alarms.spare()
				w.end()
				for range moved {
				}
			}
			at = later
			w.alarms.set(at)
		}
	}
}

// lookForNews returns a new end of validity, if there is one. If the present one is over, as this
// process stood still, the command stands still meanwhile. That is not waited for: the kernel can be
// at work on other groups for a second.
func (w *warden) lookForNews(at boottime.Instant, moved <-chan boottime.Instant) (later boottime.Instant, news bool) {
	if at.Until() < 0 && w.group != nil {
		frozen := make(chan struct{})
		go func() {
			defer close(frozen)
			w.group.Freeze()
		}()
		defer func() {
			if news {
				go func() {
					<-frozen
					w.thaw()
				}()
			}
		}()
	}
	select {
	case later = <-moved:
		return later, true
	case <-time.After(newsWithin):
	}
	select {
	case later = <-moved: // both had come
		return later, true
	default:
		return at, false
	}
}

// thaw lets the command go on, unless etcdlocker has it stand still.
func (w *warden) thaw() {
	if !w.held.Load() {
		w.group.Thaw()
	}
}

// end has everything killed, until reap has found that nothing is left. What does not die is
// etcdlocker's to report, if there is one.
func (w *warden) end() {
	w.ending.Do(func() {
		sendTo(w.socket, numbers(end, 0, 0), -1)
		if w.pidfd >= 0 {
			kernel.PidfdSignal(w.pidfd, syscall.SIGKILL) // also where /proc shows nothing
		}
		w.killer.Begin()
	})
}
