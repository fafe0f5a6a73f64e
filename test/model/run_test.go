package model

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// casts are those of random runs.
var casts = []Cast{
	{Private: 2, Turns: 2}, {Private: 3, Turns: 2, Lone: true}, {Session: 2, Turns: 2}, {Session: 3, Private: 1, Turns: 2},
	{Private: 2, Unlinked: 1, Turns: 2}, {Private: 2, Try: 1, Turns: 2}, {Private: 2, Mutexes: 1, Turns: 2},
	{Session: 2, Mutexes: 1, Unlinked: 1, Try: 1, Turns: 2}, {Session: 2, Private: 1, Turns: 2, Forgets: true},
	{Session: 4, Sessions: 2, Turns: 3}, {Private: 5}, {Session: 3, Turns: 2, OneID: true},
	{Private: 2, Sharing: 2, Turns: 2}, {Private: 3, Sharing: 2}, {Session: 2, Together: 2, Private: 1, Turns: 2},
	{Private: 1, Sharing: 2, Mutexes: 1, Turns: 2}, {Private: 2, Sharing: 1, TryShare: 1, Unlinked: 1, Turns: 2},
	{Session: 2, Sessions: 2, Together: 3, Turns: 2, Forgets: true},
	{Slots: 2, Of: 1, Turns: 2}, {Slots: 3, Turns: 2}, {Slots: 5}, {Slots: 3, Mutexes: 1, Turns: 2}, {Sits: 3, Turns: 2},
	{Slots: 2, Sits: 2, TrySlots: 1, Turns: 2, Forgets: true}, {Sits: 4, Sessions: 2, Turns: 3}, {Slots: 2, Private: 1, Turns: 2},
	{Slots: 2, Sharing: 1, Mutexes: 1}, {Slots: 2, Others: 2, Turns: 2}, {Slots: 2, Of: 1, Unlinked: 1, Mutexes: 1, Turns: 2},
	{Sits: 2, Of: 1, Session: 1, Together: 1, Turns: 2},
	{Session: 3, Private: 1, Turns: 2, Batches: true}, {Session: 2, Together: 2, Sits: 1, Mutexes: 1, Batches: true},
	{InSets: 2, Private: 1, Turns: 2}, {InSets: 2, Session: 1, Mutexes: 1, Turns: 2}, {InSets: 1, SetShare: 2, Private: 1, Sessions: 2, Turns: 2},
}

// TestRuns: at random, and with faults, everybody gets the lock in turn, and nothing is left.
func TestRuns(t *testing.T) {
	rng := drawn(t)
	limit := 15 * time.Second
	switch {
	case *everything:
		limit = 10 * time.Minute
	case testing.Short():
		limit = time.Second
	}
	plans := plans()
	for _, cast := range casts {
		for _, faults := range []int{0, 1, 3, 8} {
			plans = append(plans, Run{Cast: cast, Faults: faults})
		}
	}
	began := time.Now()
	var mu sync.Mutex
	var wait sync.WaitGroup
	runs, steps := 0, 0
	for range 2 {
		wait.Go(func() {
			for time.Since(began) < limit && !t.Failed() {
				mu.Lock()
				r := plans[runs%len(plans)]
				r.Seed = rng.Uint64()
				runs++
				mu.Unlock()
				o := r.Go()
				mu.Lock()
				steps += o.Steps
				mu.Unlock()
				if o.Err != nil {
					r.Traced = true
					t.Errorf("seed %d of %+v, after %d steps: %v\n%s", r.Seed, r, o.Steps, o.Err, strings.Join(r.Go().Trace, "\n"))
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d runs, %d steps in %v", runs, steps, time.Since(began).Round(time.Millisecond))
}
