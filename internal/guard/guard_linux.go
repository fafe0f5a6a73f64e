package guard

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/sched"
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

// A guarded command is seen from etcdlocker: the guard is its child, and so is whatever the guard
// may leave.
type guarded struct {
	tree              *supervise.Tree // with the guard at its root
	conn              *conn
	path, interpreter string
	first             int
	mask              uint64 // the signals that the command has blocked
	pid               int    // of the command
	pidfd             int    // of the command; negative before the start, and where there are none

	group   atomic.Pointer[cgroup.Group] // of the command, if it has one
	measure atomic.Pointer[Measure]      // the last one
	frozen  []supervise.Process
	given   sched.Policy      // that this process had before the command
	settles *time.Timer       // it goes before others from then on
	killer  *supervise.Killer // nil: the command was not started
	killing time.Time         // since when; zero: nothing is killed yet
	dying   supervise.Progress
	died    time.Time   // when something did last
	ending  atomic.Bool // the guard has said that it kills everything
	// A boottime.Instant: when the guard does so unless it is told another one.
	validUntil atomic.Int64

	asked atomic.Bool // it was told to

	sent    *testimony
	started chan beginning
	exited  chan supervise.Exit
	stopped supervise.Latest
	heard   chan struct{} // closed when the guard has said all it will ever say
	begun   atomic.Bool   // it has begun to execute the command; set before heard is closed
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
		switch kind(m[0]) {
		case ready:
			g.group.Store(cgroup.Open(string(m[1:])))
			continue
		case measured:
			if measure, err := parseMeasure(m); err == nil {
				g.measure.Store(&measure)
			}
			continue
		}
		a, b, err := parseNumbers(m)
		if err != nil {
			break
		}
		switch kind(m[0]) {
		case begun:
			g.begun.Store(true)
		case started:
			g.measure.CompareAndSwap(nil, &Measure{WakeUp: time.Duration(b)})
			g.started <- beginning{pid: int(a), pidfd: fd}
		case failed:
			g.begun.Store(false)
			g.started <- beginning{err: refused(syscall.Errno(a), b)}
		case exited:
			g.exited <- supervise.Exit{Status: syscall.WaitStatus(a), OrphansLeft: b != 0, Overdue: g.ending.Load() && !g.asked.Load()}
		case stopped:
			g.stopped.Put(a != 0)
		case sent:
			g.sent.add(a)
		case end:
			g.ending.Store(true)
		}
	}
	select {
	case g.started <- beginning{err: errGone}:
	default:
	}
	g.exited <- supervise.Exit{Status: syscall.WaitStatus(syscall.SIGKILL), OrphansLeft: true, Unguarded: true}
}

func (g *guarded) Start(ctx context.Context, o Order) (err error) {
	given, _ := sched.Inherited()
	if given.RealTime() {
		// Once the command runs, who has its priority may never get a processor again.
		given.Above().Raise()
		defer func() {
			if err != nil {
				given.Raise() // for what is started next
			}
		}()
	}
	g.extended(o.ValidUntil)
	o.pgid, o.mask, o.first, o.interpreter, o.path = syscall.Getpgrp(), g.mask, g.first, g.interpreter, g.path
	err = g.conn.send(o.message(start), o.Channel)
	if err == syscall.EPIPE || err == syscall.ECONNRESET {
		err = errGone
	}
	if err == nil {
		err = g.await(ctx, o.By)
	}
	if err == nil {
		g.killer = g.newKiller()
		g.given, g.settles = given, time.AfterFunc(settleAfter, func() {
			if !given.RealTime() && !given.Above().Raise() {
				sched.ShortSlices()
			}
			g.killer.Prepare()
		})
		return nil
	}
	life := supervise.NewLife(g)
	life.Expired(time.Now())
	supervise.Drive(life, g, supervise.Events{})
	if life.Unkillable {
		return because{ErrUnkillable, err}
	}
	<-g.heard // all of it is dead, and with it the other end of the channel
	switch {
	case errors.As(err, new(refusal)), errors.Is(err, ErrNoTimers), errors.Is(err, ErrLowest):
		return err
	case g.begun.Load():
		return because{ErrKilled, err}
	}
	return because{ErrGone, err}
}

func refused(errno syscall.Errno, why uint64) error {
	switch why {
	case tooLateToStart:
		return errLate
	case cannotAlarm:
		return because{ErrNoTimers, errno}
	case cannotBeBelow:
		return ErrLowest
	}
	return refusal{errno}
}

// answerWithin is how long a guard may take to start its command. It takes milliseconds if it is
// not stopped, and the command does not come from a file system that hangs.
const answerWithin = 10 * time.Second

// await waits until the guard has started the command. A guard that has not begun to do so when it
// must have been started is given up: it will not begin any more. One that has begun is waited for.
// The kernel ends it at the end of validity that it knew: until the command is executed, it hears
// of no renewal.
func (g *guarded) await(ctx context.Context, by boottime.Instant) error {
	limit := boottime.Now().Add(answerWithin)
	timer := boottime.NewTimer()
	defer timer.Close()
	timer.Reset(min(by, limit))
	for {
		select {
		case b := <-g.started:
			if b.err == nil {
				g.pid, g.pidfd = b.pid, b.pidfd
			}
			return b.err
		case <-timer.C:
			if !g.begun.Load() || limit.Until() <= 0 {
				return errLate
			}
			timer.Reset(limit)
		case <-ctx.Done():
			return errLost
		}
	}
}

func (g *guarded) Extend(validUntil boottime.Instant, allowed time.Duration) {
	g.extended(validUntil)
	g.conn.send(extension{validUntil, boottime.Now(), allowed}.message(), 0)
}

// extended notes until when the guard does not kill. Of two at a time the later one counts.
func (g *guarded) extended(validUntil boottime.Instant) {
	for {
		before := g.validUntil.Load()
		if before >= int64(validUntil) || g.validUntil.CompareAndSwap(before, int64(validUntil)) {
			return
		}
	}
}

// over reports whether the guard kills everything, or does so as soon as it gets the processor. An
// etcdlocker that was stopped, and goes on, may have something else in mind; but what the guard has
// stopped must not go on.
func (g *guarded) over() bool {
	return g.ending.Load() || boottime.Instant(g.validUntil.Load()).Until() <= 0
}

func (g *guarded) Measured() (m Measure, ok bool) {
	if last := g.measure.Load(); last != nil {
		return *last, true
	}
	return Measure{}, false
}

func (g *guarded) Sent(sig syscall.Signal, within time.Duration) bool {
	return slices.Contains(notForGuards, os.Signal(sig)) && g.sent.has(sig, within)
}

func (g *guarded) PID() int                      { return g.pid }
func (g *guarded) Exited() <-chan supervise.Exit { return g.exited }
func (g *guarded) Stopped() <-chan bool          { return g.stopped }

// Empty is closed when the guard is gone as well: it goes when nothing is left below it, and what
// it may leave when it is killed falls to this process.
func (g *guarded) Empty() <-chan struct{} { return g.tree.Empty() }

// Signal may send to a number. It is the command's: the guard tells when the command has ended, and
// then there are no more signals.
func (g *guarded) Signal(sig syscall.Signal) {
	if g.pid > 0 {
		kernel.Signal(g.pid, g.pidfd, sig)
	}
}

func (g *guarded) Typed(sig syscall.Signal) {
	// What the guard has stopped must not go on.
	if g.pid <= 0 || sig == syscall.SIGCONT && g.over() {
		return
	}
	supervise.Typed(g.pid, sig)
}

// Terminate asks everything to end, and wakes up what is stopped so that it can.
func (g *guarded) Terminate() {
	others := g.Others()
	if len(others) == 0 && !g.over() { // /proc shows nothing
		g.Signal(syscall.SIGTERM)
		g.Signal(syscall.SIGCONT)
	}
	g.signalEach(others, syscall.SIGTERM)
	g.signalEach(slices.DeleteFunc(others, func(p supervise.Process) bool { return !p.Stopped }), syscall.SIGCONT)
}

// signalEach sends a signal to processes until the guard kills everything, which can be meanwhile
// if there are thousands.
func (g *guarded) signalEach(all []supervise.Process, sig syscall.Signal) {
	for _, p := range all {
		if g.over() {
			return
		}
		p.Signal(sig)
	}
}

// Freeze has the group stand still, and what is not in it one by one. Where /proc shows nothing it
// is the command alone.
func (g *guarded) Freeze() {
	g.conn.send(numbers(hold, 1, 0), 0)
	group := g.group.Load()
	group.Freeze()
	g.frozen = supervise.Freeze(func() (outside []supervise.Process) {
		for _, p := range g.Others() {
			if !group.Has(p.PID) {
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
	if g.over() {
		return
	}
	g.conn.send(numbers(hold, 0, 0), 0)
	if len(g.Others()) == 0 {
		g.Signal(syscall.SIGCONT)
	}
	g.signalEach(g.frozen, syscall.SIGCONT)
	g.frozen = nil
	if !g.over() {
		g.group.Load().Thaw()
	}
}

// While everything is killed, the guard does it: orphans fall to it.
const (
	// It says so. Else it may be stopped, and this process does it as well.
	answersWithin = 10 * time.Millisecond
	// It is alone with it, and beside it another one would only take processors.
	killsWithin = 500 * time.Millisecond
	// Nothing has died. Then it may be held by a debugger, and is killed as well.
	stuckAfter = time.Second
)

func (g *guarded) newKiller() *supervise.Killer {
	return supervise.NewKiller(g.group.Load(), g.tree.Reaping(), g.tree.PID())
}

// Kill has everything below the guard killed, and in the end the guard.
func (g *guarded) Kill() (progress bool) {
	now := time.Now()
	if g.killing.IsZero() {
		if g.killer == nil {
			g.killer = g.newKiller()
		}
		g.killing, g.died = now, now
		g.asked.Store(true)
		g.conn.send(numbers(end, 0, 0), 0)
		g.tree.Signal(syscall.SIGCONT)
	}
	took := now.Sub(g.killing)
	if took > killsWithin || took > answersWithin && !g.ending.Load() || !g.begun.Load() || g.saidAll() {
		g.killer.Begin()
	}
	if progress = g.dying.Made(); progress {
		g.died = now
	}
	if now.Sub(g.died) > stuckAfter || !g.begun.Load() {
		g.killer.SpareNobody()
	}
	return progress
}

// saidAll reports whether the guard has said all that it ever will, as one that was killed has.
func (g *guarded) saidAll() bool {
	select {
	case <-g.heard:
		return true
	default:
		return false
	}
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

// OnlyServers reports whether nothing but embedded etcds is left of the command.
func (g *guarded) OnlyServers() bool { return supervise.OnlyServers(g.Others()) }

// giveWayAfter is when the release of the lock is on its way.
const giveWayAfter = time.Millisecond

func (g *guarded) GiveWay() {
	if g.given.RealTime() || g.settles.Stop() {
		return
	}
	time.AfterFunc(giveWayAfter, func() { g.given.Raise() })
}

// Close ends the guard. What it has adopted falls to this process.
func (g *guarded) Close() {
	if g.killer != nil {
		g.killer.End()
	}
	g.tree.Signal(syscall.SIGKILL)
	select {
	case e := <-g.tree.Exited():
		<-g.heard
		if !e.Status.Exited() {
			g.group.Load().Remove()
		}
	case <-time.After(supervise.Patience): // a debugger holds it
	}
	g.tree.Close()
	g.conn.close()
	if g.pidfd >= 0 {
		syscall.Close(g.pidfd)
	}
}
