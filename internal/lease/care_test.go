package lease

import (
	"testing"
	"time"
)

// A cared member says when it is looked after.
type cared struct {
	told
	now chan struct{}
}

func (m *cared) LookAfter() { m.now <- struct{}{} }

// await waits until that is said.
func (m *cared) await(t *testing.T) {
	t.Helper()
	select {
	case <-m.now:
	case <-time.After(time.Minute):
		t.Fatal("it is not looked after")
	}
}

// TestDeferCare: a member is looked after once for each time that it asks for it, and not twice
// for what it asks for before that.
func TestDeferCare(t *testing.T) {
	l, m := &Lease{}, &cared{now: make(chan struct{}, 3)}
	for range 3 {
		begun := time.Now()
		l.DeferCare(m, time.Hour)
		l.DeferCare(m, time.Hour)
		m.await(t)
		if took := time.Since(begun); took < careAfter/2 {
			t.Errorf("it is looked after when %v have passed", took)
		}
	}
	l.DeferCare(m, time.Millisecond) // less than it may last without
	l.DeferCare(m, time.Hour)
	m.await(t)
	m.await(t)
	if len(m.now) > 0 {
		t.Error("it is looked after once more")
	}
}
