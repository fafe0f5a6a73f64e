package guard

import (
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
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
	w.until.Store(int64(until))
	return w, ours
}

// TestHear: a guard that looks at its channel learns all that it was told, in order.
func TestHear(t *testing.T) {
	now := boottime.Now()
	w, etcdlocker := newWarden(t, now)
	if h := w.hear(); h.any || h.over || h.asked != 0 {
		t.Errorf("from silence it heard %+v", h)
	}
	w.early.Store(1)
	for _, m := range [][]byte{
		numbers(extend, uint64(now.Add(time.Hour)), uint64(now)),
		numbers(hold, 1, 0),
		numbers(extend, uint64(now.Add(2*time.Hour)), uint64(now.Add(time.Minute))),
	} {
		if err := etcdlocker.send(m, 0); err != nil {
			t.Fatal(err)
		}
	}
	if h := w.hear(); !h.any || h.over || h.asked != now.Add(time.Minute) {
		t.Errorf("heard %+v", h)
	}
	if at := w.endsAt(); at != now.Add(2*time.Hour) || !w.held.Load() {
		t.Errorf("it ends in %v, held: %v", at.Sub(now), w.held.Load())
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

// TestNewsFirst: a guard for which validity has ended, as it was stopped, kills nothing if a renewal
// that it has not read yet awaits it.
func TestNewsFirst(t *testing.T) {
	now := boottime.Now()
	w, etcdlocker := newWarden(t, now.Add(-time.Second))
	if err := etcdlocker.send(numbers(extend, uint64(now.Add(time.Hour)), uint64(now)), 0); err != nil {
		t.Fatal(err)
	}
	moved := make(chan struct{})
	go w.keep(moved, make(chan os.Signal))
	moved <- struct{}{} // it has looked at the clock at least once by the second time
	moved <- struct{}{}
	if w.begun.Load() || w.endsAt().Until() < time.Minute {
		t.Errorf("it kills: %v, and ends in %v", w.begun.Load(), w.endsAt().Until())
	}
}

// TestLookAhead: what has appeared since the last renewal has killing begin sooner, by what it takes; by
// the most that there is room for, if that cannot be found out in time.
func TestLookAhead(t *testing.T) {
	now := boottime.Now()
	w, _ := newWarden(t, now.Add(time.Hour))
	w.most.Store(int64(10 * time.Minute))
	w.told.Store(&Measure{})
	if w.lookAhead(time.Second); w.early.Load() < int64(3*time.Second) || w.endsAt() > now.Add(time.Hour-3*time.Second) {
		t.Errorf("a guard that wakes up late begins only %v sooner", time.Duration(w.early.Load()))
	}
	w.told.Store(&Measure{WakeUp: 2 * time.Second})
	if w.lookAhead(time.Second); w.early.Load() != 1 {
		t.Errorf("what is allowed for already has killing begin %v sooner", time.Duration(w.early.Load()))
	}
	w.most.Store(1000) // nothing can be counted in an eighth of that
	if w.lookAhead(0); w.early.Load() != 1000 {
		t.Errorf("what cannot be counted has killing begin %v sooner, of 1 µs", time.Duration(w.early.Load()))
	}
}

// TestLastWords: what one end has said before it closed is heard, also if it has left something unread.
func TestLastWords(t *testing.T) {
	etcdlocker, theirs, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer etcdlocker.close()
	if err := etcdlocker.send(numbers(extend, 1, 1), 0); err != nil {
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
