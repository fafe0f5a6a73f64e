package model

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/message"
)

var (
	everything = flag.Bool("model.all", false, "explore, run and mutate everything: takes hours, and up to 16 GB")
	seed       = flag.Uint64("model.seed", 1, "what samples are drawn with; 0 draws others each time")
)

// small are casts of which every state is visited, without faults and with one.
var small = []struct {
	name string
	cast Cast
}{
	{"two with leases of their own", Cast{Private: 2}},
	{"two in a session", Cast{Session: 2}},
	{"one, and a Mutex", Cast{Private: 1, Mutexes: 1}},
	{"one in a session, and a Mutex", Cast{Session: 1, Mutexes: 1}},
	{"one that only tries, and another", Cast{Private: 1, Try: 1}},
	{"one that may not write the tail, and another", Cast{Private: 1, Unlinked: 1}},
	{"two that begin as if nobody else were there", Cast{Private: 2, Lone: true}},
	{"two that share the lock", Cast{Sharing: 2}},
	{"one that shares the lock, and another", Cast{Private: 1, Sharing: 1}},
	{"one that shares the lock, and another, in a session", Cast{Session: 1, Together: 1}},
	{"one that shares the lock, and a Mutex", Cast{Sharing: 1, Mutexes: 1}},
	{"one that tries to share the lock, and another", Cast{Private: 1, TryShare: 1}},
	{"two of two slots", Cast{Slots: 2}},
	{"two of one slot", Cast{Slots: 2, Of: 1}},
	{"two of one slot, in a session", Cast{Sits: 2, Of: 1}},
	{"one of one slot, and one that only tries", Cast{Slots: 1, TrySlots: 1, Of: 1}},
	{"one of one slot, and another that wants the lock", Cast{Slots: 1, Private: 1, Of: 1}},
	{"one of one slot, and one that shares the lock", Cast{Slots: 1, Sharing: 1, Of: 1}},
	{"one of one slot, and one of two", Cast{Slots: 1, Others: 1, Of: 1}},
	{"two in a session, in batches", Cast{Session: 2, Batches: true}},
	{"one of one slot in a session, and another, in batches", Cast{Sits: 1, Slots: 1, Of: 1, Batches: true}},
	{"one of a set, and another", Cast{InSets: 1, Private: 1}},
	{"two of sets, in a session", Cast{InSets: 2}},
	{"one of a set that shares it, and another", Cast{SetShare: 1, Private: 1}},
	{"one of one slot, and a Mutex", Cast{Slots: 1, Mutexes: 1, Of: 1}},
}

var names = [kinds]string{
	lostAnswer: "an answer that is lost, or a request that is late", slowAnswer: "a slow answer", cancel: "a wait that is given up",
	expiry: "validity that ends", operator: "an operator and K", force: "an operator and places", refusal: "a refusal",
	silence: "silent watches", oldRead: "a slow read", crash: "a crash", wipe: "data that is lost", stranger: "a stranger's key", breaks: "a break",
	pauses: "a pause", notes: "a note",
}

// drawn returns the generator with which the sample is drawn.
func drawn(t *testing.T) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("drawn with -model.seed %d", n)
	return rand.New(rand.NewPCG(n, 2))
}

// large are casts of which the first states are visited, on request.
var large = []Cast{
	{Private: 3}, {Session: 2, Private: 1}, {Private: 2, Mutexes: 1}, {Session: 1, Private: 1, Unlinked: 1}, {Private: 2, Try: 1}, {Session: 2, Turns: 2},
	{Private: 2, Sharing: 1}, {Private: 1, Sharing: 2}, {Private: 1, Sharing: 1, Mutexes: 1}, {Private: 2, Sharing: 2}, {Private: 3, Sharing: 1},
	{Private: 1, Sharing: 2, Mutexes: 1}, {Private: 2, Sharing: 1, Mutexes: 1}, {Private: 1, Sharing: 1, Turns: 2}, {Session: 1, Together: 2, Private: 1},
	{Slots: 3}, {Slots: 3, Of: 1}, {Slots: 2, Of: 1, Mutexes: 1}, {Slots: 2, Of: 1, Private: 1}, {Sits: 2, Of: 1, Session: 1}, {Sits: 3}, {Slots: 4},
	{Slots: 2, Of: 1, Turns: 2}, {Slots: 2, Of: 1, Sharing: 1}, {Slots: 2, Others: 1, Of: 1}, {Slots: 2, TrySlots: 1}, {Slots: 3, Mutexes: 1},
	{Private: 3, Sharing: 1, Mutexes: 1}, {Private: 2, Sharing: 1, Turns: 2}, {Slots: 2, Mutexes: 1, Turns: 2}, {Slots: 4, Of: 1},
	{Slots: 1, Others: 1, Private: 1, Sharing: 1}, {Slots: 2, Private: 1, Mutexes: 1}, {Sits: 2, Together: 2, Session: 2, Turns: 2},
	{Sits: 3, Together: 1, Private: 1, Mutexes: 1}, {InSets: 2, Private: 1}, {SetShare: 2, Private: 1},
}

// mostStates is how many states are visited at most, on request and in a sample: their worlds take
// some kilobytes each. With 3e6 two explorations of casts of four took more than 24 GB.
const mostStates, mostOfASample = 15e5, 2e5

// mostMemory is what all that is done on request takes, with garbage that is not collected yet.
const mostMemory = 16 << 30

// explorations returns those that are always made, and those of which a sample is drawn.
func explorations() (always, others []Exploration) {
	for _, s := range small {
		cast := s.cast
		cast.Orderly, cast.Forgets = true, true
		always = append(always, Exploration{Name: s.name, Cast: cast})
		for k := lostAnswer; k < kinds; k++ {
			others = append(others, Exploration{Name: s.name + ", and " + names[k], Cast: cast, Faults: 1, Kinds: []Kind{k}})
		}
	}
	if !*everything {
		return always, others
	}
	for _, cast := range large {
		cast.Orderly = true
		for faults := range 3 {
			others = append(others, Exploration{Name: fmt.Sprintf("%+v, %d faults", cast, faults), Cast: cast, Faults: faults})
		}
	}
	return always, others
}

// TestExplorations visits all states of small casts: without faults, and with one of each kind. Of
// the latter a sample is drawn, as many as there is time for.
func TestExplorations(t *testing.T) {
	rng := drawn(t)
	all, others := explorations()
	rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	if !testing.Short() {
		all = append(all, others...)
	}
	if *everything {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(mostMemory))
	}
	began, states, steps, n := time.Now(), 0, 0, 0
	enough := began.Add(20 * time.Second)
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			for {
				mu.Lock()
				if n == len(all) || !*everything && n >= len(small) && time.Now().After(enough) {
					mu.Unlock()
					return
				}
				e := all[n]
				if e.Most = mostStates; !*everything {
					e.Most = mostOfASample
				}
				if !*everything && n >= len(small) {
					e.Until = enough
				}
				n++
				mu.Unlock()
				begun, r := time.Now(), e.Go()
				mu.Lock()
				states, steps = states+r.States, steps+r.Steps
				mu.Unlock()
				t.Logf("%s: %d states, all %v, %d steps, %d deep, %v", e.Name, r.States, r.Whole, r.Steps, r.Depth, time.Since(begun).Round(time.Millisecond))
				if r.Err != nil {
					t.Errorf("%s: %v", e.Name, r.Err)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d of %d explorations, %d states, %d steps in %v", n, len(small)+len(others), states, steps, time.Since(began).Round(time.Millisecond))
}

// TestExplorationsFindWhatBreaks: an exploration shows who is overtaken, what nothing leads
// out of, and a false alarm.
func TestExplorationsFindWhatBreaks(t *testing.T) {
	leaves := func(name message.Name, path ...step) Mutation {
		for _, m := range mutations() {
			if m.name == name && slices.Equal(m.path, path) {
				return m.apply
			}
		}
		t.Fatalf("no mutation of %s", name)
		return nil
	}
	for want, e := range map[string]Exploration{
		"got the lock before k/2": {Cast: Cast{Private: 1, Mutexes: 1}, Mutate: leaves(message.AcquireOrJoin, step{comparisons, 2})},
		"nothing leads to an end": {Cast: Cast{Private: 2, Orderly: true, Forgets: true}, Mutate: leaves(message.GiveBack, step{then, 1})},
		"a loss (4) without one":  {Cast: Cast{Private: 1, Orderly: true}, Mutate: leaves(message.AcquireOrJoin, step{then, 1})},
	} {
		if r := e.Go(); r.Err == nil || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("%v, and not %q", r.Err, want)
		} else {
			t.Logf("%d states, %d deep: %v", r.States, r.Depth, r.Err)
		}
	}
}
