// Package supervise looks after the life of a command that runs under a lock: it decides what is to
// happen to the command and to everything it started, and knows when nothing of them is left.
//
// Deciding (Life) and acting (Tree) are apart: a Life is a machine of named states that never
// blocks, and whoever can do what Hands says can act for it.
//
//	Running   --told to stop-----------------------------------------> Stopping
//	Running   --it ended, what is left is waited for-----------------> Lingering
//	Running   --lost, not well, or what it left is to end------------> Ending
//	Stopping  --lost, silent, or it ended and left something---------> Ending
//	Lingering --lost, told to stop, or nothing but etcds is left-----> Ending
//	Stopping  --the time to stop is over-----------------------------> Killing
//	Ending    --the grace is over, or it ended and left something----> Killing
//	(each)    --validity is over, or the guard is gone---------------> Killing
//	(each)    --nothing is left, or what is left runs on-------------> Over
package supervise

import (
	"syscall"
	"time"
)

// A State is where in its life a command is.
type State int

// The states.
const (
	Running   State = iota // the command runs
	Stopping               // it was told to stop, and takes its time
	Lingering              // it has ended, what it left behind is waited for
	Ending                 // everything was asked to end, and will be killed
	Killing                // everything is being killed, again and again
	Over                   // nothing is left, or what is left is not to be ended
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"running", "stopping", "lingering", "ending", "killing", "over"}[s]
}

// Orphans says what becomes of processes that a command leaves behind when it ends by itself.
type Orphans int

// The ways.
const (
	LeaveOrphans Orphans = iota // they run on
	AwaitOrphans                // the lock is kept until they end
	KillOrphans                 // they are ended
)

// Patience is for how long processes are killed, after the last one of them has died, before those
// that do not die are reported.
const Patience = 5 * time.Second

// KillEvery is the time between two rounds of killing.
const KillEvery = 5 * time.Millisecond

// followWithin is for how long a request to stop for a while is remembered. A command that takes
// longer, on a machine however busy, does not stop because of it.
const followWithin = 20 * time.Second

// emptyWithin is how long a guard that has gone may be ahead of the news that nothing is left.
const emptyWithin = 200 * time.Millisecond

// Hands acts on the command's processes. None of its methods waits.
type Hands interface {
	Signal(syscall.Signal) // to the command itself
	Typed(syscall.Signal)  // to the process group that the command leads, if it does, as a terminal
	Terminate()            // asks the command and all its descendants to end, stopped ones as well
	// Kills the command and all its descendants, and reports whether some have died since the last
	// call.
	Kill() (progress bool)
	Freeze()           // stops the command and all its descendants
	Thaw()             // lets those go on that Freeze has stopped
	OnlyServers() bool // reports whether nothing but embedded etcds is left
}

// A Reach says who else has got a signal that came to this process.
type Reach int

// The reaches.
const (
	Alone Reach = iota // nobody: the command is to get it
	Group              // the process group of this process, from a terminal
	Unit               // the command: whoever has started this process sent it to everything
	Us                 // nobody, and it is about this process alone
)

// An Exit says that the command has ended.
type Exit struct {
	Status      syscall.WaitStatus
	OrphansLeft bool // something that it started is still there
	Overdue     bool // whoever looked after it has killed it, as validity was about to end
	Unguarded   bool // whoever looked after it has died, and it was killed for that
}

// A Trouble says that the command is not well, though the lock is.
type Trouble struct {
	Why    error
	Silent bool // it gave no sign of life in time
}

// A Result says how a process beside the command ended, or why there was none.
type Result struct {
	Status syscall.WaitStatus
	Err    error
}

// A Life decides. It belongs to one goroutine.
type Life struct {
	Grace         time.Duration // from the request to end to the killing
	KillAfter     time.Duration // from being told to stop to the killing; 0: never
	Orphans       Orphans
	StopRequested func() // called when the command has been told to stop; may be nil

	// Suspend stops this process, until it is continued, as it was told to before. If the command
	// was stopped by this process alone, nobody else continues it.
	Suspend func(alone bool, before time.Duration)

	hands   Hands
	state   State
	frozen  bool
	stopped bool      // the command is
	suspend time.Time // we were told to stop when the command has stopped, then; zero: no more
	alone   bool      // nobody but us was told to

	Status      syscall.WaitStatus // how the command ended
	Ended       bool               // it did
	Overdue     bool               // because its guard did not hear of a renewal in time
	Unguarded   bool               // because its guard was gone
	Stop        syscall.Signal     // what told us to stop first; 0: nothing did
	Trouble     *Trouble           // for which it was ended
	OrphansLeft bool               // processes were left to run on
	// Processes were asked to end, or killed, beyond what was forwarded to the command.
	Forced     bool
	Unkillable bool      // processes were killed and did not die
	gone       bool      // nothing is left, whether we know how the command ended or not
	killAt     time.Time // zero: no timer
	lookAt     time.Time // while what is left is waited for, when it is looked at
	giveUp     time.Time
}

// NewLife returns the life of a command that runs.
func NewLife(hands Hands) *Life { return &Life{hands: hands} }

// State returns the present state.
func (l *Life) State() State { return l.state }

// Wake returns when Tick must be called, zero if it need not be.
func (l *Life) Wake() time.Time {
	if l.lingers() {
		return l.lookAt
	}
	return l.killAt
}

// lingers reports whether what is left is waited for, and somebody guards it.
func (l *Life) lingers() bool { return l.state == Lingering && l.killAt.IsZero() }

// IsStop reports whether a signal tells a program to stop.
func IsStop(sig syscall.Signal) bool {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP:
		return true
	}
	return false
}

// pass passes a signal on to a command that has not got it. SIGTSTP goes to all that the shell of a
// terminal would stop.
func (l *Life) pass(sig syscall.Signal, reach Reach) {
	if reach == Alone {
		l.hands.Signal(sig)
	}
	if reach == Group || reach == Alone && sig == syscall.SIGTSTP {
		l.hands.Typed(sig)
	}
}

// Signaled says that a signal came, and who else has got it.
func (l *Life) Signaled(now time.Time, sig syscall.Signal, reach Reach) {
	if l.state == Over {
		return
	}
	if !l.Ended {
		l.pass(sig, reach)
	}
	if sig == syscall.SIGTSTP {
		l.suspend, l.alone = now, reach == Alone
		l.follow(now)
	}
	if !IsStop(sig) {
		return
	}
	if l.Stop == 0 {
		l.Stop = sig
		if l.StopRequested != nil {
			l.StopRequested()
		}
	}
	switch l.state {
	case Running:
		l.state = Stopping
		if l.KillAfter > 0 {
			l.killAt = now.Add(l.KillAfter)
		}
	case Lingering:
		l.end(now)
	}
}

// Stopped says whether the command is stopped.
func (l *Life) Stopped(now time.Time, is bool) {
	l.stopped = is
	l.follow(now)
}

// follow stops this process after the command. A pager sets the terminal back before it stops, and
// must have done so when a shell sees that we have stopped and takes the terminal away. And a
// command that does not stop goes on under its lock.
func (l *Life) follow(now time.Time) {
	before := now.Sub(l.suspend)
	if before < followWithin && !l.frozen && (l.stopped || l.Ended) {
		l.suspend = time.Time{}
		l.Suspend(l.alone, before)
	}
}

// Doubt says that the lock will be lost unless it is renewed soon, or no longer. While in doubt
// everything stands still.
func (l *Life) Doubt(in bool) {
	switch l.state {
	case Running, Stopping, Lingering:
		if in {
			l.hands.Freeze()
		} else if l.frozen {
			l.hands.Thaw()
		}
		l.frozen = in
	}
}

// Lost says that the lock is lost, or about to be: the work must end before its validity does.
func (l *Life) Lost(now time.Time) {
	switch l.state {
	case Running, Stopping, Lingering:
		l.end(now)
	}
}

// Unhealthy says that the command is not well: it must not keep the lock. While it stops, because
// it was told to, nothing but silence shows that it hangs.
func (l *Life) Unhealthy(now time.Time, t Trouble) {
	if l.state == Running || l.state == Stopping && t.Silent {
		l.Trouble = &t
		l.end(now)
	}
}

// Expired says that validity is over: nothing may run any more.
func (l *Life) Expired(now time.Time) {
	switch l.state {
	case Running, Stopping, Lingering, Ending:
		l.kill(now)
	}
}

// Exited says that the command has ended. It says so a second time if its guard goes while what the
// command left is waited for: because nothing is left, which is known soon, or it was killed.
func (l *Life) Exited(now time.Time, e Exit) {
	if l.Ended {
		switch l.state {
		case Lingering:
			l.killAt = now.Add(emptyWithin)
		case Ending:
			l.kill(now)
		}
		return
	}
	l.Status, l.Ended, l.Overdue, l.Unguarded = e.Status, true, e.Overdue, e.Unguarded
	if !e.OrphansLeft || l.gone {
		l.state, l.killAt = Over, time.Time{}
		return
	}
	switch {
	case (l.Unguarded || l.Overdue) && l.state != Killing: // if overdue, the guard still kills
		l.kill(now)
	case l.state == Stopping, l.state == Running && l.Orphans == KillOrphans:
		l.end(now)
	case l.state == Running && l.Orphans == AwaitOrphans:
		l.state = Lingering
		l.linger(now)
	case l.state == Running:
		l.Doubt(false) // what was stopped is not left so
		l.state, l.OrphansLeft = Over, true
	}
}

// Empty says that no process of the command's is left. That may be known before how the command
// ended.
func (l *Life) Empty() {
	l.gone = true
	if l.Ended {
		l.state, l.killAt = Over, time.Time{}
	}
}

// lookEvery is the time between two looks at what is waited for.
const lookEvery = time.Second

// looks is how often it is looked whether something is left but embedded etcds: who becomes an
// orphan during a look may be missed by it.
const looks = 2

// linger waits for what is left, unless that is nothing but embedded etcds: they are ended. If
// somebody needs one, that somebody starts it again, outside of this command.
func (l *Life) linger(now time.Time) {
	l.lookAt = now.Add(lookEvery)
	for range looks {
		if !l.hands.OnlyServers() {
			return
		}
	}
	l.end(now)
}

// Tick does what is due.
func (l *Life) Tick(now time.Time) {
	if l.lingers() {
		if !now.Before(l.lookAt) {
			l.linger(now)
		}
		return
	}
	if l.killAt.IsZero() || now.Before(l.killAt) {
		return
	}
	if l.state != Killing {
		l.kill(now)
		return
	}
	switch {
	case l.hands.Kill():
		l.giveUp = now.Add(Patience)
	case now.After(l.giveUp):
		l.state, l.Unkillable, l.killAt = Over, true, time.Time{}
		return
	}
	l.killAt = now.Add(KillEvery)
}

func (l *Life) end(now time.Time) {
	l.Doubt(false) // what stands still cannot end
	if at := now.Add(l.Grace); l.killAt.IsZero() || at.Before(l.killAt) {
		l.killAt = at
	}
	l.state, l.Forced = Ending, true
	l.hands.Terminate()
}

func (l *Life) kill(now time.Time) {
	l.state, l.Forced = Killing, true
	l.giveUp = now.Add(Patience)
	l.killAt = now.Add(KillEvery)
	l.hands.Kill()
}
