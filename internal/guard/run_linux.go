package guard

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
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

// reserveAfter is when the guard reserves the threads that it will need. The shortest commands have
// ended by then, and hardly any has used up all that its user may have. etcdlocker does it later:
// if one of them is just short of a thread, and ends of that, the other one is not.
const reserveAfter = 3 * time.Millisecond

// A warden is a guard at work. One thread, the main one, starts the command and waits for what ends
// below it; everything else is done by goroutines beside it.
type warden struct {
	socket int           // our end of the channel
	alarms alarms        // for when this process is stopped
	group  *cgroup.Group // in which the command is born; nil: it has no group
	own    sched.Policy  // of this process
	first  atomic.Bool   // it goes before all that is ordinary: own is a real-time policy
	given  sched.Policy  // that this process was started with
	env    []string      // of the command, but for what comes with the order
	wakeUp time.Duration // measured while there was no order

	pid, pidfd int // of the command; the descriptor is negative where there are none
	checker    int // the process id of what runs checks; 0: nothing does
	reaping    sync.Mutex
	hearing    sync.Mutex
	measuring  sync.Mutex
	message    []byte         // the last one; guarded by hearing
	deadline   deadline       // guarded by hearing
	ahead      time.Duration  // by how much sooner than at the end of validity killing may begin
	told       *Measure       // that etcdlocker was told last; nil: none
	pressure   sched.Pressure // guarded by measuring
	held       atomic.Bool    // etcdlocker has the command stand still
	killer     *supervise.Killer
	ending     sync.Once
	begun      atomic.Bool  // ending has begun: who stops is of no interest any more
	alone      atomic.Bool  // etcdlocker is gone
	reported   atomic.Bool  // that the command has ended
	hasLeft    atomic.Bool  // and has left something
	deserted   atomic.Value // string: what was killed as etcdlocker was gone, if anything was
}

// A deadline is when everything is killed.
type deadline struct {
	until   boottime.Instant // the end of validity, as etcdlocker has said last
	allowed time.Duration    // what that leaves for killing, beyond the usual
	early   time.Duration    // by how much sooner than that killing has to begin
	looked  bool             // early has been found out
}

// at is when killing begins.
func (d deadline) at() boottime.Instant { return d.until.Add(-d.early) }

// looks is when that is looked at next: once by so much sooner, as killing may have to begin
// sooner.
func (d deadline) looks(ahead time.Duration) boottime.Instant {
	if d.looked {
		return d.at()
	}
	return d.at().Add(-ahead)
}

// extend moves it. Where the end of validity, which never moves back, has stayed where it was, it
// does not allow for what the last measure asks for.
func (d *deadline) extend(e extension) {
	const moved = time.Millisecond // less is how exactly it is computed
	if e.until.Sub(d.until) < moved {
		e.allowed = min(e.allowed, d.allowed)
	}
	*d = deadline{until: max(d.until, e.until), allowed: e.allowed}
}

// run is the guard. It belongs to the main thread, as the command's death signal goes by the thread
// that started it.
func run() int {
	socket, ok := enter(Name)
	if !ok {
		return 1
	}
	if slack, ok := numberOf(os.Environ(), slackNumber); ok && slack > 0 {
		kernel.SetTimerSlack(time.Duration(slack)) // see lazyWatch
	}
	w := &warden{socket: socket, env: commandEnvironment(os.Environ()), pidfd: -1}
	w.prepare()
	o, err := w.awaitStart()
	if err == nil { // else etcdlocker did not get the lock, or is gone
		w.guard(o)
	}
	w.group.Remove()
	if w.alone.Load() {
		Attest(o.Lease) // for whoever waits; without it that one waits for the lease to run out
	}
	if killed, is := w.deserted.Load().(string); is {
		sayDeserted(killed, o.Env)
	}
	return 0
}

// noteDeserted takes note of what is killed as etcdlocker is gone. If nothing is, etcdlocker has
// ended as it should.
func (w *warden) noteDeserted() {
	switch {
	case !w.reported.Load():
		w.deserted.Store("the command")
	case w.hasLeft.Load():
		w.deserted.Store("what the command had left")
	}
}

// longestNamed is how long a quoted key can be that is named: a pipe may have room for no more than
// a page.
const longestNamed = 1000

// sayDeserted says, in place of an etcdlocker that cannot any more, why the command has ended. It
// does so where stderr takes that at once.
func sayDeserted(killed string, env []string) {
	lock, free := "the lock", "is not released, it frees itself"
	for _, one := range env {
		if key, is := kernel.CutPrefix(one, "ETCD_LOCK_KEY="); is && len(strconv.Quote(key)) <= longestNamed {
			lock = "lock " + strconv.Quote(key)
		}
		if list, is := kernel.CutPrefix(one, "ETCDLOCK_HELD="); is {
			if n := locksIn(list); n > 1 {
				free = "and " + strconv.Itoa(n-1) + " more are not released, they free themselves"
			}
		}
	}
	signal.Ignore(syscall.SIGTTOU) // of a terminal that stops who writes in the background
	if kernel.Takes(syscall.Stderr) {
		os.Stderr.WriteString("etcdlocker: error: etcdlocker was killed, or has crashed, and its guard has killed " + killed + "; " +
			lock + " " + free + "\n")
	}
}

// locksIn returns how many locks there are in the list that the command finds.
func locksIn(list string) (n int) {
	for i := range list {
		if _, is := kernel.CutPrefix(list[i:], `"token":`); is {
			n++
		}
	}
	return n
}

// prepare does all that can be done before the lock is there. What is not possible has to do
// without, but for the alarms: see guard.
func (w *warden) prepare() {
	w.alarms.prepare()
	kernel.NoChildSignals()
	outliveSignals()
	w.given, _ = sched.Inherited()
	if w.own = w.given; w.given.RealTime() {
		// Go starts threads from one that is not locked: from now on from one that is raised here,
		// and not from this one, which gives its priority up.
		runtime.LockOSThread()
		w.first.Store(true)
		w.raise() // once the command runs, it may be too late
	}
	// The number that etcdlocker has may be another one's, in another pid namespace.
	group, err := cgroup.Make(groupsOf(os.Getppid()) + hex(int64(rand.Uint32())))
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
	w.message = make([]byte, maxMessage)
	for last := (deadline{}); ; {
		// The command inherits the descriptor.
		n, channel, err := receiveFrom(w.socket, w.message, 0)
		if err != nil {
			return Order{}, errGone
		}
		switch m := w.message[:n]; kind(m[0]) {
		case extend:
			e, err := parseExtension(m)
			if err != nil {
				return Order{}, err
			}
			last.extend(e)
			w.wakeUp = boottime.Now().Sub(e.sent)
		case start:
			o, err := parseOrder(m)
			last.extend(extension{until: o.ValidUntil, allowed: o.Allowed})
			w.deadline, w.ahead, o.Channel = last, o.Ahead, channel
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
	// Before there is a command that could outlive a guard that is stopped.
	w.alarms.set(w.deadline.looks(w.ahead), w.deadline.until.Add(executing))
	if why, err := w.start(o); err != nil {
		w.refuse(err, why)
		return
	}
	w.testify()
	w.killer = supervise.NewKiller(w.group, &w.reaping, 0)
	w.setAlarms(w.deadline)
	moved, continued := make(chan struct{}), make(chan os.Signal, 1)
	go w.listen(moved)
	go w.keep(moved, continued)
	time.AfterFunc(reserveAfter, w.killer.Reserve)
	time.AfterFunc(settleAfter, func() { w.settle(continued, o.pgid) })
	w.reap()
}

// settle does what a short command can do without.
func (w *warden) settle(continued chan os.Signal, pgid int) {
	if !w.given.RealTime() {
		w.raise()
	}
	w.leaveSession(pgid)
	w.killer.Prepare()
	kernel.LockMemory()
	signal.Notify(continued, syscall.SIGCONT)
	select {
	case continued <- syscall.SIGCONT: // it may have come before
	default:
	}
	w.group.Sweep()
}

// leaveSession makes this process a session of its own. Where the kernel shares the processors out
// among sessions (CONFIG_SCHED_AUTOGROUP), it then has as much of them as the command's session,
// however many processes are busy there. Who leads a process group has to leave it first: for the
// command's. And nothing may be left in it: while reaping is held, there is nothing of what finds
// out whether there is room for a thread.
func (w *warden) leaveSession(pgid int) {
	w.reaping.Lock()
	defer w.reaping.Unlock()
	if pgid != 0 {
		syscall.Setpgid(0, pgid)
	}
	if _, err := syscall.Setsid(); err != nil {
		syscall.Setpgid(0, 0) // at least what is typed is not for this process
	}
}

// raise has this process run before the command where that is allowed, and as soon as possible
// elsewhere.
func (w *warden) raise() {
	if above := w.given.Above(); above.Raise() {
		w.own = above
		w.first.Store(true)
	} else {
		sched.ShortSlices()
	}
}

// start starts the command, unless there is no time left for it.
func (w *warden) start(o Order) (why uint64, err error) {
	if o.first >= len(os.Args) {
		return cannotExecute, syscall.EINVAL
	}
	if w.given, err = w.given.Below(w.own); err != nil {
		return cannotBeBelow, err
	}
	w.env = environment(w.env, o.Env)
	kernel.SetSignalMask(o.mask) // this process was started with all of them blocked
	if o.Checks {
		if err := w.startChecker(o.Channel); err != nil {
			return cannotExecute, err
		}
		o.Channel = 0
	}
	if o.Channel > 0 {
		defer syscall.Close(o.Channel) // or it would stay open when the command has closed it
	}
	if o.By.Until() <= 0 {
		return tooLateToStart, syscall.ETIME
	}
	// By an etcdlocker above this one, see cgroup.Thaw: nobody could be executed in it.
	if w.group.Frozen() {
		w.group.Thaw()
	}
	for _, sig := range o.Ignored {
		signal.Ignore(sig) // the command inherits that
	}
	if err := sendTo(w.socket, numbers(begun, 0, 0), -1); err != nil {
		return cannotExecute, err
	}
	path, words := o.path, withInterpreter(o.interpreter, os.Args[o.first:])
	if isListener(w.env) {
		path, words = staged(path, words, o.Ignored)
	}
	w.pid, err = w.fork(path, words, withChannel(w.env, o.Channel),
		&syscall.SysProcAttr{Setpgid: o.pgid != 0, Pgid: o.pgid, PidFD: &w.pidfd})
	if err != nil {
		return cannotExecute, err
	}
	if w.given.RealTime() {
		// This thread has nothing more to do but to reap. The kernel makes it wait, without
		// sleeping, while anybody else has to do with an entry in /proc, and for that they must get
		// the processor: at a real-time priority it was seen to wait without end.
		sched.Ordinary.SetThread()
	}
	if o.pgid == 0 {
		syscall.Setpgid(0, 0) // the command has inherited the group, and now the guard leaves it
	}
	// What follows wakes up etcdlocker, and threads here. The command goes first.
	kernel.Readable(w.pidfd, headStart)
	sendTo(w.socket, numbers(started, uint64(w.pid), uint64(w.wakeUp)), w.pidfd)
	return 0, nil
}

// headStart is about what the kernel needs to execute a command.
const headStart = time.Millisecond

// fork starts a process in the control group, which dies with this thread, under the policy that
// the guard was started with.
func (w *warden) fork(path string, args, env []string, sys *syscall.SysProcAttr) (pid int, err error) {
	sys.Pdeathsig = syscall.SIGKILL
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys}
	if w.given != w.own {
		w.given.SetThread() // and it stays there: it may not be allowed to go back
	}
	if fd, ok := w.group.FD(); ok {
		sys.UseCgroupFD, sys.CgroupFD = true, fd
		pid, err = syscall.ForkExec(path, args, attr)
		if err == nil && supervise.Executed(pid) {
			return pid, nil
		}
		if err == nil {
			// Some kernels (6.18 was seen) kill what is born in a group when another one, the one
			// that this process is in, has ever been killed by cgroup.kill.
			w.forget(pid)
		}
		// Where clone3 is refused, it is a fork as ever. Nothing has been executed.
		sys.UseCgroupFD = false
	}
	return syscall.ForkExec(path, args, attr)
}

// forget waits for a child that is about to end.
func (w *warden) forget(pid int) {
	kernel.Uninterrupted(func() error {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		return err
	})
	if w.pidfd >= 0 {
		syscall.Close(w.pidfd)
		w.pidfd = -1
	}
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

// reap waits for everything that ends below the guard, reports how the command ended, and returns
// when the kernel says that nothing is left.
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
	left = left || w.hasOthers()
	w.report(status, left)
	if !left && !w.given.RealTime() {
		w.given.Raise() // the processor is for the next holder's
	}
	for left {
		if _, _, left = w.wait(0); !left && w.hasOthers() {
			time.Sleep(lookAgain)
			left = true
		}
	}
	w.hasLeft.Store(false) // an etcdlocker that goes now has deserted nothing
}

// lookAgain is the time between two looks at a group that only others than children are in.
const lookAgain = 20 * time.Millisecond

// hasOthers reports whether somebody is in the group. With no children left these can only be
// processes that were put into another pid namespace (nsenter): when their parent dies, they fall
// to the first process there.
func (w *warden) hasOthers() bool { return len(w.group.Members()) > 0 }

// wait waits for a process to end, and reports whether there are any. On the way it tells
// etcdlocker when the command stops and goes on.
func (w *warden) wait(options int) (pid int, status syscall.WaitStatus, left bool) {
	for {
		stops := !w.begun.Load()
		if options&syscall.WNOHANG == 0 {
			switch kernel.Uninterrupted(func() error { return kernel.AwaitChild(stops) }) {
			case nil:
			case syscall.ECHILD:
				return 0, 0, false
			default: // a sandbox may refuse the call
				time.Sleep(supervise.KillEvery)
			}
		}
		if pid, status, left = w.collect(stops); pid > 0 && (status.Stopped() || status.Continued()) {
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
func (w *warden) collect(stops bool) (pid int, status syscall.WaitStatus, left bool) {
	options := syscall.WNOHANG
	if stops {
		options |= syscall.WUNTRACED | syscall.WCONTINUED
	}
	w.reaping.Lock()
	defer w.reaping.Unlock()
	err := kernel.Uninterrupted(func() (err error) {
		pid, err = syscall.Wait4(-1, &status, options, nil)
		return err
	})
	if err != nil {
		pid = 0
	}
	return pid, status, err != syscall.ECHILD
}

// report tells etcdlocker how the command ended, and whether something of it is left.
func (w *warden) report(status syscall.WaitStatus, left bool) {
	w.hasLeft.Store(left)
	w.reported.Store(true)
	sendTo(w.socket, numbers(exited, uint64(status), flag(left)), -1)
}

// heard is what a look at the channel has brought.
type heard struct {
	any  bool // something
	over bool // everything is to be killed, or etcdlocker is gone
	// When the last extension was sent, which asks for a measure; 0: there was none.
	asked boottime.Instant
}

// hear takes all orders that are there, and does not wait for any. A guard that was stopped, or has
// waited for a processor, finds in them what it has missed.
func (w *warden) hear() (h heard) {
	w.hearing.Lock()
	defer w.hearing.Unlock()
	for {
		n, _, err := receiveFrom(w.socket, w.message, syscall.MSG_CMSG_CLOEXEC|syscall.MSG_DONTWAIT)
		if err == syscall.EAGAIN {
			return h
		}
		h.any = true
		if err != nil {
			w.alone.Store(true)
			h.over = true
			return h
		}
		switch m := w.message[:n]; kind(m[0]) {
		case extend:
			if e, err := parseExtension(m); err == nil {
				w.deadline.extend(e)
				h.asked = e.sent
			}
		case hold:
			if still, _, err := parseNumbers(m); err == nil {
				w.held.Store(still != 0)
			}
		case end:
			h.over = true
		}
	}
}

// due is when everything is killed, as far as hear has heard, and what was found shortly before.
func (w *warden) due() deadline {
	w.hearing.Lock()
	defer w.hearing.Unlock()
	return w.deadline
}

// listen waits for orders until etcdlocker is gone.
func (w *warden) listen(moved chan<- struct{}) {
	c, err := newConn(w.socket)
	for err == nil && !w.alone.Load() {
		var h heard
		err = c.raw.Read(func(uintptr) bool {
			h = w.hear()
			return h.any || w.alone.Load()
		})
		if h.over {
			w.end()
		}
		if h.asked != 0 {
			moved <- struct{}{} // one goroutine at a time: two would wake up another thread
			w.measure(boottime.Now().Sub(h.asked))
		}
	}
	w.end()
}

// measure tells etcdlocker what it would take to kill everything. When that was asked for, this
// process had to wake up as it has to at the end of validity.
func (w *warden) measure(wakeUp time.Duration) {
	begun := boottime.Now()
	processes, _ := w.count(time.Second)
	walk := boottime.Now().Sub(begun)
	m := Measure{w.wakeUpWithin(wakeUp), walk, processes}
	if w.told != nil && m.isLike(*w.told) {
		return // to answer means to wake up once more, when the answer is read
	}
	w.told = &m
	sendTo(w.socket, m.message(), -1)
}

// wakeUpWithin returns how long this process may need to wake up, which took it so long now.
func (w *warden) wakeUpWithin(took time.Duration) time.Duration {
	if w.first.Load() {
		return max(took, 0)
	}
	w.measuring.Lock()
	defer w.measuring.Unlock()
	return max(took, w.pressure.Wait())
}

// isLike reports whether two measures make no difference to the margin.
func (m Measure) isLike(other Measure) bool {
	const some, few = time.Millisecond, 20
	return m.WakeUp/some == other.WakeUp/some && m.Walk/some == other.Walk/some && m.Processes/few == other.Processes/few
}

// keep watches over the end of validity. What has once been ended is not taken back.
func (w *warden) keep(moved <-chan struct{}, continued <-chan os.Signal) {
	timer := boottime.NewTimer()
	for {
		due := w.due()
		next := due.looks(w.ahead)
		timer.Reset(next)
		continues := false
		select {
		case <-moved:
		case <-continued:
			continues = true
		case <-timer.C:
			continues = true // or it was too long until this process got to look
		}
		over := w.hear().over
		if due = w.due(); !due.looked && due.until.Until() > 0 && due.until.Until() <= w.ahead {
			due = w.lookAhead(due, -next.Until())
		}
		if over || due.at().Until() <= 0 {
			w.alarms.spare()
			w.end()
			for range moved {
			}
		}
		w.setAlarms(due)
		// An etcdlocker above this one has let all of us go on, but for the command: see
		// cgroup.Thaw.
		if continues && !w.begun.Load() && w.group.Frozen() {
			go w.thaw() // it may have to wait in the kernel
		}
	}
}

// setAlarms has the kernel continue a guard that is stopped when it would look ahead: it may have
// to wait for a processor, and ends everything at once if etcdlocker is gone.
func (w *warden) setAlarms(due deadline) {
	w.alarms.set(due.looks(w.ahead), due.at().Add(lastResort))
}

// lookAhead counts once more what is to be killed, when no renewal has come for long, and returns
// when that has to begin. What has appeared since etcdlocker was told last is not in its margin.
func (w *warden) lookAhead(due deadline, late time.Duration) deadline {
	early, begun := w.ahead, boottime.Now()
	if n, all := w.count(w.ahead / 8); all {
		walk := boottime.Now().Sub(begun)
		now := Measure{w.wakeUpWithin(late), walk, n}
		early = min(max(now.Extra()-due.allowed, 0), w.ahead)
	}
	w.hearing.Lock()
	defer w.hearing.Unlock()
	if w.deadline == due { // else it can be done again
		w.deadline.early, w.deadline.looked = early, true
	}
	return w.deadline
}

// count counts the processes of the command. It gives up after a time, and reports whether it has
// not.
func (w *warden) count(within time.Duration) (n int, all bool) {
	if n := len(w.group.Members()); n > 0 {
		return n, true
	}
	return supervise.Count(within)
}

// thaw lets the command go on, unless etcdlocker has it stand still.
func (w *warden) thaw() {
	if w.hear().over { // or it has said that it does
		w.end()
	}
	if !w.held.Load() && !w.begun.Load() {
		w.group.Thaw()
	}
}

// end has everything killed, until reap has found that nothing is left. What does not die is
// etcdlocker's to report, if there is one.
func (w *warden) end() {
	w.ending.Do(func() {
		w.begun.Store(true)
		if w.alone.Load() {
			w.noteDeserted()
		}
		sendTo(w.socket, numbers(end, 0, 0), -1)
		if w.pidfd >= 0 {
			kernel.PidfdSignal(w.pidfd, syscall.SIGKILL) // also where /proc shows nothing
		}
		w.killer.Begin()
	})
}
