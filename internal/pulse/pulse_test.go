//go:build unix

package pulse

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// played is a source whose signs the test gives.
type played struct {
	heard chan News
	asked chan time.Time
}

func (p *played) Given() ([]string, int) { return nil, 0 }
func (p *played) Begin()                 {}
func (p *played) Ask()                   { p.asked <- time.Now() }
func (p *played) Heard() <-chan News     { return p.heard }
func (p *played) Silence(d time.Duration) supervise.Trouble {
	return supervise.Trouble{Silent: true, Why: fmt.Errorf("silent for %v", d)}
}
func (p *played) Close() {}

var limits = Limits{First: 20 * time.Second, Next: 10 * time.Second, Interval: 5 * time.Second}

// play runs a test with a monitor in a world of its own time.
func play(t *testing.T, f func(t *testing.T, p *played, m *Monitor)) {
	synctest.Test(t, func(t *testing.T) {
		p := &played{heard: make(chan News), asked: make(chan time.Time, 100)}
		m := Watch(p, limits)
		defer m.Close()
		f(t, p, m)
	})
}

// silentAt expects trouble after a time, and none before.
func silentAt(t *testing.T, m *Monitor, after time.Duration, why string) {
	t.Helper()
	begun := time.Now()
	trouble := <-m.Trouble()
	if got := time.Since(begun); got != after || !trouble.Silent || trouble.Why.Error() != why {
		t.Errorf("after %v: %+v, want it after %v: %s", got, trouble, after, why)
	}
}

func TestTheFirstSignHasTheFirstLimit(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		silentAt(t, m, 20*time.Second+settle, "silent for 20s")
		if n := len(p.asked); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestAskedAgainAfterTheInterval(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		for range 3 {
			asked := <-p.asked
			time.Sleep(9 * time.Second) // in time
			p.heard <- News{}
			if again := <-p.asked; again.Sub(asked) != 14*time.Second {
				t.Errorf("asked again after %v", again.Sub(asked))
			}
			p.heard <- News{}
		}
		<-p.asked
		silentAt(t, m, 10*time.Second+settle, "silent for 10s")
	})
}

// TestASignSettles: one that is there when the limit is noticed counts.
func TestASignSettles(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		time.Sleep(20*time.Second + settle/2)
		p.heard <- News{}
		silentAt(t, m, 15*time.Second+settle, "silent for 10s")
	})
}

// TestTrouble is said at once, in every state, and the watch goes on: whoever hears it may have
// been told to stop.
func TestTrouble(t *testing.T) {
	for _, resting := range []bool{false, true} {
		play(t, func(t *testing.T, p *played, m *Monitor) {
			if resting {
				p.heard <- News{}
			}
			p.heard <- News{Trouble: errors.New("wrong")}
			p.heard <- News{Trouble: errors.New("another one, before the first was heard")}
			synctest.Wait()
			if trouble := <-m.Trouble(); trouble.Silent || trouble.Why.Error() != "wrong" {
				t.Errorf("%+v", trouble)
			}
			silentAt(t, m, 15*time.Second+settle, "silent for 10s")
		})
	}
}

// TestParting: what may be the end of the command is given some time to be just that.
func TestParting(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		begun := time.Now()
		p.heard <- News{Trouble: errors.New("closed"), Parting: true, Last: true}
		time.Sleep(parting - 1)
		m.Paused(true) // and that does not count
		time.Sleep(time.Hour)
		m.Paused(false)
		if trouble := <-m.Trouble(); trouble.Silent || trouble.Why.Error() != "closed" || time.Since(begun) != time.Hour+2*parting-1 {
			t.Errorf("%+v after %v", trouble, time.Since(begun))
		}
		<-m.done // nothing more can be heard
	})
}

// TestDisturbed: a check that did not go well while the command stood still is made again. A wrong
// answer is one all the same.
func TestDisturbed(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		<-p.asked
		m.Paused(true)
		time.Sleep(time.Minute)
		p.heard <- News{Trouble: errors.New("no answer"), Parting: true}
		m.Paused(false)
		<-p.asked
		p.heard <- News{Trouble: errors.New("no answer"), Parting: true}
		if trouble := <-m.Trouble(); trouble.Why.Error() != "no answer" {
			t.Errorf("%+v", trouble)
		}
		m.Paused(true)
		synctest.Wait()
		p.heard <- News{Trouble: errors.New("wrong")}
		time.Sleep(time.Minute)
		select {
		case trouble := <-m.Trouble():
			t.Errorf("it is in trouble while it stands still: %+v", trouble)
		default:
		}
		m.Paused(false)
		if trouble := <-m.Trouble(); trouble.Why.Error() != "wrong" {
			t.Errorf("%+v", trouble)
		}
	})
}

// TestStopping: who was told to stop has the first limit, at least, and that again after each sign.
func TestStopping(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		<-p.asked
		p.heard <- News{}
		<-p.asked
		time.Sleep(9 * time.Second)
		m.Stopping()
		time.Sleep(19 * time.Second)
		p.heard <- News{}
		silentAt(t, m, 25*time.Second+settle, "silent for 20s")
	})
}

// TestNotYet: what is not well yet is asked again, and does not get more time for that.
func TestNotYet(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		for range 3 {
			<-p.asked
			time.Sleep(time.Second)
			p.heard <- News{Trouble: errors.New("starting"), NotYet: true}
		}
		silentAt(t, m, 7*time.Second+settle, "silent for 20s") // it is the 13th second
	})
}

// TestOtherLimit: a sign can bring another limit for the next one, and for that one alone.
func TestOtherLimit(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		p.heard <- News{Within: time.Hour}
		time.Sleep(30 * time.Minute)
		p.heard <- News{}
		silentAt(t, m, 15*time.Second+settle, "silent for 10s")
	})
}

// TestStandingStill: who cannot give signs need not, and has the whole limit when it can again.
func TestStandingStill(t *testing.T) {
	play(t, func(t *testing.T, p *played, m *Monitor) {
		time.Sleep(19 * time.Second)
		m.Paused(true)
		time.Sleep(time.Hour)
		m.Paused(false)
		time.Sleep(19 * time.Second)
		m.Paused(false) // both of us stood still
		silentAt(t, m, 20*time.Second+settle, "silent for 20s")
	})
}

// TestAbsence: when the end of the limit is noticed much too late, this process was not there to
// hear anything, and perhaps the command was not either.
func TestAbsence(t *testing.T) {
	start := time.Unix(1000, 0)
	for late, want := range map[time.Duration]bool{0: true, absence: true, absence + 1: false} {
		m := &Monitor{source: &played{}, limit: limits.First, trouble: make(chan supervise.Trouble, 1)}
		m.allow(start)
		at := start.Add(limits.First)
		m.tick(at.Add(late))
		if len(m.trouble) != 0 {
			t.Fatal("trouble before it has settled")
		}
		if m.tick(at.Add(late + settle)); len(m.trouble) == 1 != want {
			t.Errorf("late by %v: %v", late, m.trouble)
		}
	}
}

// TestNobodyWatches: without a source there is nothing to hear, and nothing to do.
func TestNobodyWatches(t *testing.T) {
	m := Watch(nil, Limits{})
	m.Paused(true)
	m.Close()
	if m.Trouble() != nil {
		t.Error("it could say something")
	}
}
