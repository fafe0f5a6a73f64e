package supervise

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// scripted are Processes whose news a test makes.
type scripted struct {
	*recorder
	exited  chan Exit
	empty   chan struct{}
	stopped chan bool
}

func newScripted(r *recorder) *scripted {
	return &scripted{r, make(chan Exit, 2), make(chan struct{}), make(chan bool)}
}

func (s *scripted) Exited() <-chan Exit    { return s.exited }
func (s *scripted) Empty() <-chan struct{} { return s.empty }
func (s *scripted) Stopped() <-chan bool   { return s.stopped }

// TestSignalsBeforeTheStart: the command has none of them, whoever has sent them.
func TestSignalsBeforeTheStart(t *testing.T) {
	l, r := newTestLife()
	p := newScripted(r)
	p.exited <- Exit{Status: syscall.WaitStatus(syscall.SIGINT)}
	asked := func(syscall.Signal) Reach { t.Error("it asks whether the command has it"); return Group }
	Drive(l, p, Events{Before: []os.Signal{syscall.SIGWINCH, syscall.SIGINT}, Reach: asked})
	r.expect(t, l, Over, "window changed", "interrupt")
	if l.Stop != syscall.SIGINT {
		t.Errorf("stopped by %v", l.Stop)
	}
}

// TestGuardLeavesFirst: when nothing is left of what is waited for, the guard goes. That it is gone
// is known before that nothing is left.
func TestGuardLeavesFirst(t *testing.T) {
	l, r := newTestLife()
	l.Orphans = AwaitOrphans
	p := newScripted(r)
	p.exited <- Exit{Status: 5 << 8, Left: true}
	p.exited <- Exit{Status: 9, Left: true, Unguarded: true}
	go func() {
		for len(p.exited) > 0 {
			time.Sleep(time.Millisecond)
		}
		close(p.empty)
	}()
	Drive(l, p, Events{})
	r.expect(t, l, Over)
	if l.Forced || l.Unguarded || l.Status.ExitStatus() != 5 {
		t.Errorf("forced %v, unguarded %v, status %v", l.Forced, l.Unguarded, l.Status)
	}
}
