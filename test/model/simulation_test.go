package model

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// crowds are large casts: 20 contenders and more, in three sessions and by themselves.
var crowds = []Cast{
	{Private: 6, Unlinked: 2, Try: 2, Session: 9, Sessions: 3, Mutexes: 1, Turns: 50},
	{Private: 5, Unlinked: 3, Try: 3, Session: 9, Sessions: 3, Turns: 50, Forgets: true, Lone: true},
	{Private: 6, Sharing: 6, TryShare: 2, Together: 3, Session: 6, Sessions: 3, Mutexes: 1, Turns: 50},
}

// lasting are the faults after which a user goes on: a crowd in which processes are killed is soon
// a small one.
func lasting() (all []Kind) {
	for k := lostAnswer; k < kinds; k++ {
		if k != crash {
			all = append(all, k)
		}
	}
	return all
}

// TestSimulation runs large casts at random, with all faults.
func TestSimulation(t *testing.T) {
	rng := drawn(t)
	limit := 10 * time.Second
	switch {
	case *everything:
		limit = 10 * time.Minute
	case testing.Short():
		limit = time.Second
	}
	began := time.Now()
	var mu sync.Mutex
	var wait sync.WaitGroup
	steps, runs := 0, 0
	for range 2 {
		wait.Go(func() {
			for time.Since(began) < limit {
				mu.Lock()
				runs++
				r := Run{Cast: crowds[runs%len(crowds)], Kinds: lasting(), Faults: 400, Often: 20, Seed: rng.Uint64(), Most: 1 << 20}
				if runs%8 == 0 {
					r.Kinds = nil
				}
				mu.Unlock()
				o := r.Go()
				mu.Lock()
				steps += o.Steps
				mu.Unlock()
				if o.Err != nil {
					t.Errorf("seed %d of %+v, after %d steps: %v\n%s", r.Seed, r.Cast, o.Steps, o.Err, lastOf(r))
					return
				}
			}
		})
	}
	wait.Wait()
	perMinute := float64(steps) / time.Since(began).Minutes()
	t.Logf("%d runs, %d steps in %v, %.1f million a minute", runs, steps, time.Since(began).Round(time.Millisecond), perMinute/1e6)
}

// lastOf makes a run again, and returns the end of its trace.
func lastOf(r Run) string {
	r.Traced = true
	trace := r.Go().Trace
	return strings.Join(trace[max(0, len(trace)-400):], "\n")
}
