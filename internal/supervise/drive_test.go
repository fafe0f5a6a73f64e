package supervise

import (
	"os"
	"slices"
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
	p.exited <- Exit{Status: 5 << 8, OrphansLeft: true}
	p.exited <- Exit{Status: 9, OrphansLeft: true, Unguarded: true}
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

// TestToldAndEmpty: of a command that was told to stop with the whole unit, and has ended, all is
// known at once, perhaps first that nothing is left.
func TestToldAndEmpty(t *testing.T) {
	for range 100 {
		l, r := newTestLife()
		p := newScripted(r)
		p.exited <- Exit{}
		close(p.empty)
		signals := make(chan os.Signal, 1)
		settle := func() { signals <- syscall.SIGTERM }
		Drive(l, p, Events{Signals: signals, Settle: settle, Reach: func(syscall.Signal) Reach { return Alone }})
		if r.expect(t, l, Over); l.Stop != syscall.SIGTERM {
			t.Fatalf("stopped by %v", l.Stop)
		}
	}
}

// TestManySignals: while it is found out who else has got a signal others come. Each is taken once,
// and none that tells to stop is lost behind them, or waits for them.
func TestManySignals(t *testing.T) {
	l, r := newTestLife()
	p := newScripted(r)
	signals := make(chan os.Signal, 4)
	var order []syscall.Signal
	reach := func(sig syscall.Signal) Reach {
		order = append(order, sig)
		switch len(order) {
		case 1:
			for _, sig := range []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGUSR1, syscall.SIGTERM} {
				signals <- sig
			}
		case 4:
			p.exited <- Exit{}
		}
		return Alone
	}
	signals <- syscall.SIGUSR1
	Drive(l, p, Events{Signals: signals, Reach: reach})
	if want := []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}; !slices.Equal(order, want) || l.Stop != syscall.SIGTERM {
		t.Errorf("taken: %v, want %v; stopped by %v", order, want, l.Stop)
	}
}
