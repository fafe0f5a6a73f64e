package guard

import (
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// channels stay open until the test binary ends: a guard that is left alone kills.
var channels []*conn

// newWarden returns a guard without a command, and etcdlocker's end of its channel.
func newWarden(t *testing.T, until boottime.Instant) (*warden, *conn) {
	t.Helper()
	ours, theirs, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	channels = append(channels, ours)
	w := &warden{socket: theirs, message: make([]byte, maxMessage), pidfd: -1}
	w.deadline.until = until
	return w, ours
}

// TestHear: a guard that looks at its channel learns all that it was told, in order.
func TestHear(t *testing.T) {
	now := boottime.Now()
	w, etcdlocker := newWarden(t, now)
	if h := w.hear(); h.any || h.over || h.asked != 0 {
		t.Errorf("from silence it heard %+v", h)
	}
	w.deadline.early, w.deadline.looked = 1, true
	for _, m := range [][]byte{
		extension{now.Add(time.Hour), now, 0}.message(),
		numbers(hold, 1, 0),
		extension{now.Add(2 * time.Hour), now.Add(time.Minute), time.Second}.message(),
	} {
		if err := etcdlocker.send(m, 0); err != nil {
			t.Fatal(err)
		}
	}
	if h := w.hear(); !h.any || h.over || h.asked != now.Add(time.Minute) {
		t.Errorf("heard %+v", h)
	}
	if due := w.due(); due != (deadline{until: now.Add(2 * time.Hour), allowed: time.Second}) || !w.held.Load() {
		t.Errorf("it ends at %+v, held: %v", due, w.held.Load())
	}
	if err := etcdlocker.send(numbers(end, 0, 0), 0); err != nil {
		t.Fatal(err)
	}
	if h := w.hear(); !h.over || w.alone.Load() {
		t.Errorf("told to end it heard %+v", h)
	}
	etcdlocker.close()
	if h := w.hear(); !h.over || !w.alone.Load() {
		t.Errorf("left alone it heard %+v", h)
	}
}

// TestNewsFirst: a guard for which validity has ended, as it was stopped, kills nothing if a
// renewal that it has not read yet awaits it.
func TestNewsFirst(t *testing.T) {
	now := boottime.Now()
	w, etcdlocker := newWarden(t, now.Add(-time.Second))
	if err := etcdlocker.send(extension{now.Add(time.Hour), now, 0}.message(), 0); err != nil {
		t.Fatal(err)
	}
	moved := make(chan struct{})
	go w.keep(moved, make(chan os.Signal))
	moved <- struct{}{} // it has looked at the clock at least once by the second time
	moved <- struct{}{}
	if due := w.due(); w.begun.Load() || due.at().Until() < time.Minute {
		t.Errorf("it kills: %v, and ends in %v", w.begun.Load(), due.at().Until())
	}
}

// TestLookAhead: what the end of validity does not allow for has killing begin sooner, by what it
// takes; by the most that there is room for, if that cannot be found out in time.
func TestLookAhead(t *testing.T) {
	now := boottime.Now()
	look := func(allowed, ahead, late time.Duration) time.Duration {
		w, _ := newWarden(t, now.Add(time.Hour))
		w.ahead, w.deadline.allowed = ahead, allowed
		due := w.lookAhead(w.due(), late)
		if !due.looked || due != w.due() {
			t.Errorf("it has found %+v, and knows %+v", due, w.due())
		}
		return due.early
	}
	if early := look(0, 10*time.Minute, time.Second); early < 3*time.Second || early > 10*time.Second {
		t.Errorf("a guard that wakes up late begins only %v sooner", early)
	}
	if early := look(20*time.Second, 10*time.Minute, time.Second); early != 0 {
		t.Errorf("what is allowed for already has killing begin %v sooner", early)
	}
	if early := look(0, time.Second, time.Hour); early != time.Second {
		t.Errorf("killing begins %v sooner, 1 s is the most", early)
	}
	if early := look(0, 1000, 0); early != 1000 { // nothing can be counted in an eighth of that
		t.Errorf("what cannot be counted has killing begin %v sooner, of 1 µs", early)
	}
}

// TestLookAheadIsBeyondTheMeasure: what the guard has told etcdlocker after the last renewal is in
// no margin yet.
func TestLookAheadIsBeyondTheMeasure(t *testing.T) {
	now := boottime.Now()
	w, etcdlocker := newWarden(t, now)
	w.ahead = 10 * time.Minute
	if err := etcdlocker.send(extension{now.Add(time.Hour), now, 10 * time.Millisecond}.message(), 0); err != nil {
		t.Fatal(err)
	}
	w.measure(boottime.Now().Sub(w.hear().asked) + time.Second) // it woke up late
	if due := w.lookAhead(w.due(), time.Second); due.early < 2*time.Second {
		t.Errorf("killing begins %v sooner", due.early)
	}
}

// TestLookAheadOnABusyMachine: a guard that may have to wait for a processor begins sooner, also if
// it did not have to wait this time; not so one that runs before all others.
func TestLookAheadOnABusyMachine(t *testing.T) {
	if _, err := os.Stat("/proc/pressure/cpu"); err != nil {
		etcdtest.Skip(t, "the kernel does not account for how busy it is (CONFIG_PSI)")
	}
	etcdtest.KeepBusy(t)
	const early = 100 * time.Millisecond
	w, _ := newWarden(t, boottime.Now().Add(time.Hour))
	w.ahead = 10 * time.Minute
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		due := w.lookAhead(w.due(), 0)
		if due.early > early {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it begins %v sooner", due.early)
		}
	}
	w.first.Store(true)
	for end := time.Now().Add(time.Minute); ; {
		due := w.lookAhead(w.due(), 0) // to count can take longer, now and then
		if due.early <= early {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("at a real-time priority it begins %v sooner", due.early)
		}
	}
}

// TestDeadline: where the end of validity has stayed where it was, it allows for no more than
// before.
func TestDeadline(t *testing.T) {
	const ms = time.Millisecond
	now := boottime.Now()
	var d deadline
	for _, tt := range []struct {
		until, allowed         time.Duration
		wantUntil, wantAllowed time.Duration
	}{
		{1000 * ms, 10 * ms, 1000 * ms, 10 * ms},
		{1000*ms + 10, 200 * ms, 1000*ms + 10, 10 * ms}, // computed a little later
		{900 * ms, 200 * ms, 1000*ms + 10, 10 * ms},
		{1500 * ms, 200 * ms, 1500 * ms, 200 * ms},
		{1500 * ms, 50 * ms, 1500 * ms, 50 * ms},
	} {
		d.early, d.looked = ms, true
		d.extend(extension{until: now.Add(tt.until), allowed: tt.allowed})
		if want := (deadline{until: now.Add(tt.wantUntil), allowed: tt.wantAllowed}); d != want {
			t.Errorf("after %v and %v: %+v, want %+v", tt.until, tt.allowed, d, want)
		}
	}
}

// TestLastWords: what one end has said before it closed is heard, also if it has left something
// unread.
func TestLastWords(t *testing.T) {
	etcdlocker, theirs, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer etcdlocker.close()
	if err := etcdlocker.send(extension{1, 1, 1}.message(), 0); err != nil {
		t.Fatal(err)
	}
	if err := sendTo(theirs, numbers(exited, 7, 0), -1); err != nil {
		t.Fatal(err)
	}
	syscall.Close(theirs)
	if m, _, err := etcdlocker.receive(); err != nil || kind(m[0]) != exited {
		t.Fatalf("%q, %v", m, err)
	}
	if _, _, err := etcdlocker.receive(); err != io.EOF {
		t.Errorf("after the last words: %v", err)
	}
}

// TestThawNothingKilled: a guard that is continued does not let go on what it kills.
func TestThawNothingKilled(t *testing.T) {
	group, err := cgroup.Make(strconv.Itoa(os.Getpid()) + "-7e57")
	if err != nil {
		etcdtest.Missing(t, "a control group of version 2 in which groups can be made")
	}
	defer group.Remove()
	group.Freeze()
	w, _ := newWarden(t, boottime.Now().Add(time.Hour))
	w.group = group
	w.begun.Store(true)
	if w.thaw(); !group.Frozen() {
		t.Error("the group was thawed")
	}
	w.begun.Store(false)
	if w.thaw(); group.Frozen() {
		t.Error("the group was not thawed")
	}
}
