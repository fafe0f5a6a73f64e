package supervise

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// recorder takes note of what a Life wants done.
type recorder struct {
	did      []string
	progress bool // of the killing
	servers  bool // nothing else is left
	looks    int  // that were taken for what else is left
	missed   int  // as many of the first looks miss it
}

func (r *recorder) OnlyServers() bool {
	r.looks++
	return r.servers || r.looks <= r.missed
}

func (r *recorder) Signal(s syscall.Signal) { r.did = append(r.did, s.String()) }
func (r *recorder) Typed(s syscall.Signal)  { r.did = append(r.did, "group: "+s.String()) }
func (r *recorder) Terminate()              { r.did = append(r.did, "terminate") }
func (r *recorder) Freeze()                 { r.did = append(r.did, "freeze") }
func (r *recorder) Thaw()                   { r.did = append(r.did, "thaw") }

func (r *recorder) Kill() (progress bool) {
	r.did = append(r.did, "kill")
	return r.progress
}

func newTestLife() (*Life, *recorder) {
	r := &recorder{}
	l := NewLife(r)
	l.Grace = time.Second
	return l, r
}

var start = time.Unix(1000, 0)

func (r *recorder) expect(t *testing.T, l *Life, state State, did ...string) {
	t.Helper()
	if l.State() != state {
		t.Errorf("state %v, want %v", l.State(), state)
	}
	if !slices.Equal(r.did, did) {
		t.Errorf("it did %q, want %q", r.did, did)
	}
}

func TestLostThenGraceThenKill(t *testing.T) {
	l, r := newTestLife()
	l.Lost(start)
	r.expect(t, l, Ending, "terminate")
	l.Tick(start.Add(999 * time.Millisecond))
	r.expect(t, l, Ending, "terminate")
	l.Tick(start.Add(time.Second))
	r.expect(t, l, Killing, "terminate", "kill")
	l.Exited(start.Add(time.Second), Exit{Status: 9, OrphansLeft: true})
	r.expect(t, l, Killing, "terminate", "kill")
	l.Empty()
	r.expect(t, l, Over, "terminate", "kill")
	if l.Unkillable || !l.Wake().IsZero() || !l.Forced {
		t.Error("it is not at rest")
	}
}

// TestEmptyBeforeExited: the news that nothing is left can be faster than how the command ended.
func TestEmptyBeforeExited(t *testing.T) {
	l, r := newTestLife()
	l.Expired(start)
	l.Empty()
	r.expect(t, l, Killing, "kill")
	l.Exited(start, Exit{Status: 9, OrphansLeft: true, Unguarded: true})
	r.expect(t, l, Over, "kill")
}

// TestWhatStandsStillCannotEnd: it is let go before it is asked to end.
func TestWhatStandsStillCannotEnd(t *testing.T) {
	l, r := newTestLife()
	l.Doubt(true)
	l.Lost(start)
	r.expect(t, l, Ending, "freeze", "thaw", "terminate")
}

// TestGuardDiesLater: the command has ended, what it left is waited for, and then nobody is left to
// guard that. It is killed soon, and at once if the lock is lost.
func TestGuardDiesLater(t *testing.T) {
	l, r := newTestLife()
	l.Orphans = AwaitOrphans
	l.Exited(start, Exit{Status: 5 << 8, OrphansLeft: true})
	r.expect(t, l, Lingering)
	l.Exited(start, Exit{Status: 9, OrphansLeft: true, Unguarded: true})
	r.expect(t, l, Lingering)
	l.Tick(l.Wake())
	r.expect(t, l, Killing, "kill")
	if late := l.Wake().Sub(start); late > time.Second {
		t.Errorf("killed after %v", late)
	}
	if l.Unguarded || l.Status.ExitStatus() != 5 {
		t.Errorf("the command's own end is forgotten: %v", l.Status)
	}
}

// TestServersAreNotWaitedFor: an embedded etcd that is left over is ended, however long it is after
// the command, and what else is left is waited for.
func TestServersAreNotWaitedFor(t *testing.T) {
	l, r := newTestLife()
	l.Orphans = AwaitOrphans
	l.Exited(start, Exit{OrphansLeft: true})
	r.expect(t, l, Lingering)
	first := l.Wake()
	l.Tick(first)
	r.expect(t, l, Lingering)
	r.servers = true
	l.Tick(first)
	r.expect(t, l, Lingering)
	l.Tick(l.Wake())
	r.expect(t, l, Ending, "terminate")
	l.Tick(l.Wake())
	r.expect(t, l, Killing, "terminate", "kill")
	l.Empty()
	r.expect(t, l, Over, "terminate", "kill")

	l, r = newTestLife()
	l.Orphans, r.servers = AwaitOrphans, true
	l.Exited(start, Exit{OrphansLeft: true})
	r.expect(t, l, Ending, "terminate")

	l, r = newTestLife()
	l.Orphans, r.missed = AwaitOrphans, 1
	l.Exited(start, Exit{OrphansLeft: true})
	r.expect(t, l, Lingering)
}

func TestDoubt(t *testing.T) {
	l, r := newTestLife()
	l.Doubt(false)
	l.Doubt(true)
	l.Doubt(false)
	r.expect(t, l, Running, "freeze", "thaw")
	l.Doubt(true)
	l.Expired(start)
	l.Doubt(false) // too late: a kill that has begun is final
	r.expect(t, l, Killing, "freeze", "thaw", "freeze", "kill")
}

// prepare brings a new life into a state.
var prepare = map[State]func(*Life){
	Running:   func(*Life) {},
	Stopping:  func(l *Life) { l.Signaled(start, syscall.SIGTERM, Unit) },
	Lingering: func(l *Life) { l.Orphans = AwaitOrphans; l.Exited(start, Exit{Status: 0, OrphansLeft: true}) },
	Ending:    func(l *Life) { l.Lost(start) },
}

func TestExpiredKillsAtOnceInEveryState(t *testing.T) {
	for state, do := range prepare {
		l, r := newTestLife()
		do(l)
		if l.State() != state {
			t.Fatalf("state %v, want %v", l.State(), state)
		}
		l.Expired(start)
		if l.State() != Killing || r.did[len(r.did)-1] != "kill" {
			t.Errorf("from %v: state %v, did %q", state, l.State(), r.did)
		}
	}
}

// TestUnhealthy: while the command runs every trouble ends it, while it stops silence alone, and
// after that none.
func TestUnhealthy(t *testing.T) {
	for _, silent := range []bool{true, false} {
		for state, do := range prepare {
			l, _ := newTestLife()
			do(l)
			l.Unhealthy(start, Trouble{Silent: silent})
			taken := state == Running || state == Stopping && silent
			if taken != (l.Trouble != nil) || taken && l.State() != Ending || !taken && l.State() != state {
				t.Errorf("silent %v, from %v: state %v, taken %v", silent, state, l.State(), l.Trouble != nil)
			}
		}
	}
}

func TestAKillThatHasBegunIsFinal(t *testing.T) {
	l, r := newTestLife()
	l.Expired(start)
	l.Signaled(start, syscall.SIGTERM, Unit)
	l.Lost(start)
	l.Expired(start)
	r.expect(t, l, Killing, "kill")
}

func TestToldToStop(t *testing.T) {
	l, r := newTestLife()
	l.KillAfter = time.Minute
	l.Signaled(start, syscall.SIGUSR1, Alone)
	told := 0
	l.StopRequested = func() { told++ }
	l.Signaled(start, syscall.SIGINT, Group) // typed: the command has it if it is in the group
	l.Signaled(start, syscall.SIGTERM, Alone)
	l.Signaled(start, syscall.SIGHUP, Unit)
	r.expect(t, l, Stopping, "user defined signal 1", "group: interrupt", "terminated")
	if l.Stop != syscall.SIGINT || told != 1 {
		t.Errorf("stopped by %v, told %d times", l.Stop, told)
	}
	l.Tick(start.Add(time.Minute))
	r.expect(t, l, Killing, "user defined signal 1", "group: interrupt", "terminated", "kill")
}

// TestToldToStopAndMore: it is killed as soon as one of the reasons says so.
func TestToldToStopAndMore(t *testing.T) {
	for name, more := range map[string]func(l *Life, at time.Time){
		"the lock is lost":        (*Life).Lost,
		"the command has ended":   func(l *Life, at time.Time) { l.Exited(at, Exit{OrphansLeft: true}) },
		"the command is not well": func(l *Life, at time.Time) { l.Unhealthy(at, Trouble{Silent: true}) },
	} {
		for killAfter, due := range map[time.Duration]time.Duration{2 * time.Second: 2 * time.Second, 5 * time.Second: 2500 * time.Millisecond} {
			l, _ := newTestLife()
			l.KillAfter = killAfter
			l.Signaled(start, syscall.SIGTERM, Alone)
			more(l, start.Add(1500*time.Millisecond))
			if l.State() != Ending || l.Wake().Sub(start) != due {
				t.Errorf("%s, with %v: state %v, killed after %v, want %v", name, killAfter, l.State(), l.Wake().Sub(start), due)
			}
		}
	}
}

// TestSuspend: we stop when the command has, whichever of the two is known first, and only if we
// were asked to.
func TestSuspend(t *testing.T) {
	l, r := newTestLife()
	l.Suspend = func(alone bool, _ time.Duration) { r.did = append(r.did, fmt.Sprint("suspend ", alone)) }
	l.Stopped(start, true)
	l.Stopped(start, false)
	r.expect(t, l, Running)
	l.Signaled(start, syscall.SIGTSTP, Alone)
	r.expect(t, l, Running, "stopped", "group: stopped")
	l.Stopped(start, true)
	l.Stopped(start, false)
	l.Stopped(start, true)
	r.expect(t, l, Running, "stopped", "group: stopped", "suspend true")
	l.Signaled(start, syscall.SIGTSTP, Group)
	r.expect(t, l, Running, "stopped", "group: stopped", "suspend true", "group: stopped", "suspend false")
	l.Stopped(start, false)
	l.Signaled(start, syscall.SIGTSTP, Group)
	l.Stopped(start.Add(followWithin), true) // not because of that
	l.Stopped(start, false)
	l.Signaled(start, syscall.SIGTSTP, Group)
	l.Doubt(true)
	l.Stopped(start, true) // because of the doubt
	r.expect(t, l, Running, "stopped", "group: stopped", "suspend true", "group: stopped", "suspend false",
		"group: stopped", "group: stopped", "freeze")
	if l.Stop != 0 {
		t.Errorf("told to stop by %v", l.Stop)
	}
}

func TestWhatTheCommandLeaves(t *testing.T) {
	tests := []struct {
		orphans Orphans
		stop    bool
		state   State
		left    bool
	}{
		{LeaveOrphans, false, Over, true},
		{AwaitOrphans, false, Lingering, false},
		{KillOrphans, false, Ending, false},
		{LeaveOrphans, true, Ending, false},
		{AwaitOrphans, true, Ending, false},
	}
	for _, tt := range tests {
		l, _ := newTestLife()
		l.Orphans = tt.orphans
		if tt.stop {
			l.Signaled(start, syscall.SIGTERM, Alone)
		}
		l.Exited(start, Exit{Status: 0, OrphansLeft: true})
		if l.State() != tt.state || l.OrphansLeft != tt.left {
			t.Errorf("%+v: state %v, left %v", tt, l.State(), l.OrphansLeft)
		}
	}
}

// TestPatienceCountsFromTheLastDeath: as long as processes die, the rest are waited for.
func TestPatienceCountsFromTheLastDeath(t *testing.T) {
	l, r := newTestLife()
	l.Expired(start)
	r.progress = true
	l.Tick(start.Add(Patience + time.Second))
	r.progress = false
	l.Tick(start.Add(2 * Patience))
	if l.State() != Killing {
		t.Fatalf("gave up too early: %v", l.State())
	}
	l.Tick(start.Add(2*Patience + 2*time.Second))
	if l.State() != Over || !l.Unkillable {
		t.Errorf("state %v, unkillable %v", l.State(), l.Unkillable)
	}
}

func TestUnkillableIsReported(t *testing.T) {
	l, _ := newTestLife()
	l.Expired(start)
	l.Tick(start.Add(Patience))
	if l.State() != Killing {
		t.Fatalf("gave up too early: %v", l.State())
	}
	l.Tick(start.Add(Patience + time.Second))
	if l.State() != Over || !l.Unkillable {
		t.Errorf("state %v, unkillable %v", l.State(), l.Unkillable)
	}
}

// TestGuardDiesAndMore: what else happens when the guard is gone is not put off.
func TestGuardDiesAndMore(t *testing.T) {
	for name, do := range map[string]func(*Life){
		"lost":    func(l *Life) { l.Lost(start) },
		"told":    func(l *Life) { l.Signaled(start, syscall.SIGTERM, Alone) },
		"expired": func(l *Life) { l.Expired(start) },
	} {
		l, _ := newTestLife()
		l.Grace = time.Hour
		l.Orphans = AwaitOrphans
		l.Exited(start, Exit{OrphansLeft: true})
		l.Exited(start, Exit{OrphansLeft: true, Unguarded: true})
		do(l)
		if at := l.Wake(); at.IsZero() || at.Sub(start) > time.Second {
			t.Errorf("%s: killed at %v", name, at)
		}
	}
}

// TestOverdue: a guard that kills, as validity ends, reports the command before the rest is dead.
func TestOverdue(t *testing.T) {
	for _, orphans := range []Orphans{LeaveOrphans, AwaitOrphans, KillOrphans} {
		for name, before := range map[string]func(*Life){
			"running":     func(*Life) {},
			"told to end": func(l *Life) { l.Signaled(start, syscall.SIGTERM, Unit) },
			"lost":        func(l *Life) { l.Lost(start) },
			"in doubt":    func(l *Life) { l.Doubt(true) },
		} {
			l, r := newTestLife()
			l.Orphans = orphans
			before(l)
			l.Exited(start, Exit{Status: 9, OrphansLeft: true, Overdue: true})
			if l.State() != Killing || l.OrphansLeft || r.did[len(r.did)-1] != "kill" {
				t.Errorf("%s: state %v, left %v, it did %q", name, l.State(), l.OrphansLeft, r.did)
			}
		}
	}
}

// TestLeftInDoubt: what a command leaves behind as it stands still goes on, as it is nobody's to
// end.
func TestLeftInDoubt(t *testing.T) {
	l, r := newTestLife()
	l.Doubt(true)
	l.Exited(start, Exit{Status: 9, OrphansLeft: true})
	r.expect(t, l, Over, "freeze", "thaw")
}
