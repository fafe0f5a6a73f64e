package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/plain"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/supervise"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// releaseLimit bounds the release: when etcd does not answer, the lock frees itself after the TTL.
const releaseLimit = 1500 * time.Millisecond

// close releases the locks and leaves nothing in etcd.
func (h *holder) close(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := h.lock.close(ctx)
	h.unconfirmed = errors.Is(err, etcdlock.ErrUnconfirmed)
	return err
}

// release releases the locks after the work and says what came of it. It reports whether one of
// them was lost.
func (h *holder) release() (lost bool) {
	lease := h.held.Lease()
	err := h.close(releaseLimit)
	var l *etcdlock.LostError
	lost = errors.As(err, &l)
	if h.nothingLeft && (lost && l.Reason == etcdlock.Unrenewed || errors.Is(err, etcdlock.ErrUnconfirmed)) {
		// Etcd may not have heard that the lease is to end. Who waits on this machine can say so.
		if err := guard.Attest(int64(lease)); err != nil {
			h.voice.logger(h.verbose).Debug("cannot attest that nothing is left", "cause", err)
		}
	}
	switch {
	case lost:
		h.sayLost(l)
		return true
	case errors.Is(err, etcdlock.ErrUnconfirmed):
		h.voice.warnf("%s: etcd did not confirm the release, %s within %v: %v%s", h.keys.locks(), h.keys.freeThemselves(), h.ttl, err, h.byProxy())
	case err != nil:
		h.voice.warnf("releasing %s: %v", h.keys.locks(), err)
	default:
		h.voice.logger(h.verbose).Debug(h.keys.released())
	}
	return false
}

// released says what has become of the locks that were to be released.
func (h *holder) released() string {
	if h.unconfirmed {
		return fmt.Sprintf("%s %s within %v", h.keys.locks(), h.keys.form("frees itself", "free themselves"), h.ttl)
	}
	return h.keys.released()
}

// wereReleased says the same in a hint, which names no key.
func (h *holder) wereReleased() string {
	if h.unconfirmed {
		return fmt.Sprintf("%s within %v", h.keys.form("the lock frees itself", "the locks free themselves"), h.ttl)
	}
	return h.keys.form("the lock was", "the locks were") + " released"
}

// sayUnrenewed says what may help where renewals fail with err.
func (h *holder) sayUnrenewed(err error) {
	switch {
	case errors.Is(err, rpctypes.ErrInvalidAuthToken) && h.client.Username != "":
		h.voice.hintf("etcd had forgotten the login, and the next one took too long: etcd checks few passwords a second; a longer --ttl leaves time for that")
	case errors.Is(err, rpctypes.ErrInvalidAuthToken):
		h.voice.hintf("a token expires: write new ones into the file of --auth-jwt-token-file, which is read again, or use a password")
	case isDenied(err):
		h.voice.hintf("etcd lets this user no more: its password, its role or the user itself was changed; the file of --password-file is read again")
	default:
		h.voice.hintf("etcd did not answer in time (see its log and the network), or etcdlocker was stopped for too long; a longer --ttl rides out both")
	}
}

func (h *holder) sayLost(lost *etcdlock.LostError) {
	if lost.Reason == etcdlock.Unrenewed {
		h.voice.errorf("%v%s", lost, h.byProxy())
		h.sayUnrenewed(lost)
		return
	}
	h.voice.errorf("%v", lost)
	if errors.As(lost, new(*record.Break)) {
		h.voice.hintf("nothing else ran under the lock until this command had stopped; run it again to stand in line again")
		return
	}
	if lost.Reason.Forced() {
		h.voice.hintf("somebody revoked the lease or deleted keys below %q, or etcd lost its data: another holder may have started already", lost.Key+"/")
	} else {
		changed, under := fmt.Sprintf("the key %q", lost.Key), "under the lock"
		switch n := h.mode.Slots(); {
		case n > 0:
			changed, under = fmt.Sprintf("the key %q", wire.Slot(lost.Key, n, h.held.Slot(lost.Key))), "in this slot"
		case h.mode == etcdlock.Shared:
			changed, under = fmt.Sprintf("its place below %q", lost.Key+"/"), "under the lock alone"
		}
		h.voice.hintf("somebody changed %s to stop this holder; nothing else ran %s meanwhile", changed, under)
	}
}

// holdOnly holds the locks without a command until a signal comes.
func (h *holder) holdOnly() int {
	h.voice.flush()
	go h.announce() // stdout may take nothing
	sig := h.pause(nil)
	lost := h.release()
	switch {
	case lost:
		return exitLost
	case sig != 0:
		h.voice.errorf("stopped by %s; %s", signalName(sig), h.released())
		return exitSignal + int(sig)
	}
	return exitLost
}

// announce prints each key and its token, and of a semaphore the slot.
func (h *holder) announce() {
	takeFailedWrites()
	for _, key := range h.keys {
		says := []any{plain.Word(key), h.held.Token(key)}
		if h.mode.Slots() > 0 {
			says = append(says, h.held.Slot(key))
		}
		if _, err := fmt.Println(says...); err != nil {
			h.voice.warnf("the key and the token cannot be written: %v", err)
			return
		}
	}
}

// pause waits, holding the locks, until timer rings, one of them is lost, or a signal tells us to
// stop, which it returns.
func (h *holder) pause(timer <-chan time.Time) syscall.Signal {
	quit := make(chan struct{})
	stop := make(chan syscall.Signal, 1)
	go func() { stop <- waitForStop(quit, h.signals) }()
	select {
	case <-timer:
	case <-h.work.Done():
	case sig := <-stop:
		return sig
	}
	close(quit)
	return <-stop
}

// validUntil returns the instant at which somebody else may have a lock if no further renewal
// succeeds, or one up to 1 ms before it. Where this process stands still between two looks at the
// clock, which would make that more, it looks again.
func (h *holder) validUntil() (until boottime.Instant) {
	const looks, exact = 10, time.Millisecond
	for range looks {
		now := boottime.Now()
		until = now.Add(h.held.Remaining())
		if boottime.Now().Sub(now) < exact {
			break
		}
	}
	return until
}

// supervise runs the command to its end and releases the locks.
func (h *holder) supervise() int {
	terminal := saveTerminal()
	catch(h.signals, unix.SIGTSTP) // before there is a command that it would have to reach
	watched, err := h.newPulsing()
	if err != nil {
		h.close(releaseLimit)
		return h.voice.fail(usagef(h.wereReleased(), "cannot look after %q: %w", h.command[0], err), exitNoCommand)
	}
	run, err := h.start(watched)
	if err != nil {
		watched.close()
		return h.notStarted(run, err)
	}
	if terminal.state != nil {
		settle() // what was typed until now, the command may not have got
	}
	h.toldToStop()
	h.voice.logger(h.verbose).Debug("command started", "pid", run.PID())
	watched.begin(run)
	life := supervise.NewLife(watched)
	life.Grace, life.KillAfter, life.Orphans = h.grace, h.killAfter, h.orphans
	life.Suspend = func(alone bool, before time.Duration) {
		over := continued()
		if over && alone && before > stopsWithin {
			return // the command has not stopped for that
		}
		if !over {
			stopSelf()
		}
		if over || alone || !inForeground() {
			run.Signal(unix.SIGCONT) // else fg has sent it to the whole group
		}
		run.Typed(unix.SIGCONT)
		watched.monitor.Paused(false)
	}
	events := supervise.Events{
		Lost: h.work.Done(), Expired: h.held.Expired(), Unhealthy: watched.monitor.Trouble(),
		Before: h.before, Signals: h.signals, Settle: settle,
		Reach: func(sig syscall.Signal) supervise.Reach { return reach(sig, run) },
	}
	patience := h.sayStopping(life, &events, watched.monitor.Stopping)
	defer patience.Stop()
	if h.freeze {
		quit := make(chan struct{})
		defer close(quit)
		events.Doubt, events.Lost = h.watchDoubt(quit), h.lostOtherwise(quit)
	}
	supervise.Drive(life, run, events)
	watched.close()
	if life.Forced || life.Status.Signaled() {
		terminal.restore()
	}
	return h.finish(life, run)
}

// sayStoppingEvery is how often it is looked whether a command that was told to stop is to be said
// to be waited for.
const sayStoppingEvery = 2 * time.Second

// newsWithin is how long the news of a command may take that has come before.
const newsWithin = 50 * time.Millisecond

// sayStopping has it said that the command, or what it has left, is waited for, some time after it
// was told to stop, until the ticker is stopped.
func (h *holder) sayStopping(life *supervise.Life, events *supervise.Events, before func()) *time.Ticker {
	ticker := time.NewTicker(sayStoppingEvery)
	ticker.Stop()
	var since time.Time
	life.StopRequested = func() {
		since = time.Now()
		ticker.Reset(sayStoppingEvery)
		before()
	}
	said, again := "", false
	events.Late, events.IsLate = ticker.C, func() {
		// Of a process that has stood still it is the first news, and not the latest.
		if again = !again; again {
			ticker.Reset(newsWithin)
			return
		}
		ticker.Reset(sayStoppingEvery)
		if says := h.waitsFor(life, since); says != said {
			said = says
			h.voice.notef("%s", says)
		}
	}
	return ticker
}

// waitsFor says what of a command that was told to stop, at the time given, is waited for, and what
// ends that.
func (h *holder) waitsFor(life *supervise.Life, since time.Time) string {
	says := "waiting for the command to end, which was told to by " + signalName(life.Stop)
	if life.Ended {
		says = "waiting for what the command has left to end, after " + signalName(life.Stop)
	}
	switch at := life.Wake(); {
	case life.State() == supervise.Killing:
		says += "; it is being killed"
	case !at.IsZero():
		says += fmt.Sprintf("; it is killed %v after that", at.Sub(since).Round(100*time.Millisecond))
	}
	return says
}

// unkillable says that something may still run, and leaves the locks alone.
func (h *holder) unkillable(run guard.Command) int {
	locksAre := h.keys.form("lock is", "locks are")
	h.voice.errorf("%s: %s could not be killed, so the %s not released; %s within %v of the last renewal",
		h.keys.locks(), names(run.Others()), locksAre, h.keys.freeThemselves(), h.ttl)
	h.voice.hintf("processes of another user, or stuck in the kernel: end them by hand before the %s free", locksAre)
	return exitNoCommand
}

// finish says how it ended, releases the locks unless the command may still run, and returns the
// exit code.
func (h *holder) finish(life *supervise.Life, run guard.Command) int {
	if life.Unkillable {
		return h.unkillable(run)
	}
	if life.OrphansLeft {
		if others := run.Others(); !supervise.OnlyServers(others) { // those are there for others
			h.voice.warnf("the command left %s running without the lock; --orphans=wait keeps the lock for them, --orphans=kill ends them",
				names(others))
		}
		h.run.close() // its guard would end them with the lock
	}
	h.nothingLeft = !life.OrphansLeft && !life.Unguarded
	log := h.voice.logger(h.verbose)
	switch {
	case life.Ended && life.Status.Signaled():
		log.Debug("command ended", "signal", signalName(life.Status.Signal()))
	case life.Ended:
		log.Debug("command ended", "exit_code", life.Status.ExitStatus())
	}
	stop, theCommand := life.Stop, "and with it the command"
	if left := time.Until(h.since.Add(h.holdAtLeast)); left > 0 && stop == 0 && h.work.Err() == nil {
		log.Debug("holding on, as --hold-at-least says", "for", left.Round(time.Millisecond))
		timer := time.NewTimer(left)
		stop, theCommand = h.pause(timer.C), "after the command had ended"
		timer.Stop()
	}
	if h.nothingLeft { // until here the locks are renewed
		run.GiveWay()
	}
	switch {
	case h.release():
		return exitLost
	case life.Trouble != nil:
		meanwhile := ""
		if stop != 0 {
			meanwhile = "told to stop by " + signalName(stop) + ", "
		}
		return h.voice.fail(usagef(hintOf(life.Trouble.Why), "%s%w; the command was stopped, and %s", meanwhile, life.Trouble.Why, h.released()), exitUnhealthy)
	case stop != 0:
		h.voice.errorf("stopped by %s, %s; %s", signalName(stop), theCommand, h.released())
		return exitSignal + int(stop)
	case life.Overdue:
		h.voice.errorf("%s could not be renewed in time; the guard has killed the command; %s%s", h.keys.locks(), h.released(), h.byProxy())
		h.sayUnrenewed(nil)
		return exitLost
	case life.Unguarded:
		return h.guardKilled()
	case life.Status.Signaled():
		sig := life.Status.Signal()
		h.voice.errorf("the command died of %s; %s", signalName(sig), h.released())
		return exitSignal + int(sig)
	}
	return life.Status.ExitStatus()
}

// guardKilled says that the command was killed because its guard was, and returns the exit code.
func (h *holder) guardKilled() int {
	h.voice.errorf("%v; %s", guard.ErrKilled, h.released())
	h.voice.hintf("leave the process called %s alone: to stop the command, send TERM to etcdlocker", guard.Name)
	return exitSignal + int(unix.SIGKILL)
}

// names lists processes for a message.
func names(processes []supervise.Process) string {
	var list []string
	for _, p := range processes {
		if !p.Alive() {
			continue
		}
		if len(list) == 5 {
			list = append(list, "others")
			break
		}
		list = append(list, fmt.Sprintf("%s (pid %d)", p.Name, p.PID))
	}
	if len(list) == 0 {
		return "a process"
	}
	return strings.Join(list, ", ")
}
