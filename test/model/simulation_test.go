package model

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowds are large casts: about 20 contenders, in sessions and by themselves.
var crowds = []Cast{
	{Private: 6, Unlinked: 2, Try: 2, Session: 9, Sessions: 3, Mutexes: 1, Turns: 50},
	{Private: 5, Unlinked: 3, Try: 3, Session: 9, Sessions: 3, Turns: 50, Forgets: true, Lone: true},
	{Private: 6, Sharing: 6, TryShare: 2, Together: 3, Session: 6, Sessions: 3, Mutexes: 1, Turns: 50},
	{Slots: 6, TrySlots: 3, Sits: 9, Sessions: 3, Mutexes: 1, Turns: 50},
	{Slots: 6, Of: 3, TrySlots: 3, Sits: 9, Sessions: 3, Turns: 50, Forgets: true},
	{Slots: 4, Others: 3, Private: 3, Sharing: 3, TryShare: 2, Sits: 3, Sessions: 1, Mutexes: 1, Turns: 50},
	{Private: 3, Session: 6, Together: 3, InSets: 4, SetShare: 3, Sessions: 3, Turns: 50, Batches: true},
}

// crowd returns a run of a crowd. Most have hundreds of faults after which a user goes on. In one
// of four processes are killed as well: then faults are fewer, so that the crowd stays one.
func crowd(c Cast, rng *rand.Rand) Run {
	r := Run{Cast: c, Faults: 400, Often: 20, Seed: rng.Uint64(), Most: 1 << 20}
	if rng.IntN(4) == 0 {
		r.Faults, r.Often = 40, 200
		return r
	}
	for k := lostAnswer; k < kinds; k++ {
		if k != crash {
			r.Kinds = append(r.Kinds, k)
		}
	}
	return r
}

// TestSimulation runs large casts at random, with all faults: one after the other, as many as there
// is time for.
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
	steps, runs := 0, rng.IntN(len(crowds))
	first := runs
	for range 2 {
		wait.Go(func() {
			for time.Since(began) < limit {
				mu.Lock()
				r := crowd(crowds[runs%len(crowds)], rng)
				runs++
				mu.Unlock()
				o := r.Go()
				mu.Lock()
				steps += o.Steps
				mu.Unlock()
				if o.Err != nil {
					t.Errorf("seed %d of %+v, after %d steps: %v\n%s", r.Seed, r, o.Steps, o.Err, lastOf(r))
					return
				}
			}
		})
	}
	wait.Wait()
	perMinute := float64(steps) / time.Since(began).Minutes()
	t.Logf("%d runs, %d steps in %v, %.1f million a minute", runs-first, steps, time.Since(began).Round(time.Millisecond), perMinute/1e6)
}

// lastOf makes a run again, and returns the end of its trace.
func lastOf(r Run) string {
	r.Traced = true
	trace := r.Go().Trace
	return strings.Join(trace[max(0, len(trace)-400):], "\n")
}
