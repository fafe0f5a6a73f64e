package model

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	everything = flag.Bool("model.all", false, "explore, run and mutate everything: takes an hour, and gigabytes")
	seed       = flag.Uint64("model.seed", 0, "what the sample without -model.all is drawn with; 0 takes another one each time")
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
	{"one that locks twice, as if nobody else were there", Cast{Private: 1, Turns: 2, Lone: true}},
}

var names = [kinds]string{
	lostAnswer: "an answer that is lost, or a request that is late", slowAnswer: "a slow answer", cancel: "a wait that is given up",
	expiry: "validity that ends", operator: "an operator and K", force: "an operator and places", refusal: "a refusal",
	silence: "silent watches", oldRead: "a slow read", crash: "a crash", wipe: "data that is lost", stranger: "a stranger's key",
}

// drawn returns the generator with which the sample is drawn.
func drawn(t *testing.T) *rand.Rand {
	n := *seed
	if n == 0 {
		n = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -model.seed %d draws this sample again", n)
	return rand.New(rand.NewPCG(n, 2))
}

// TestExplorations visits all states of small casts: without faults, and with one of each kind. Of
// the latter a sample is drawn.
func TestExplorations(t *testing.T) {
	rng := drawn(t)
	for _, s := range small {
		cast := s.cast
		cast.Orderly, cast.Forgets = true, true
		explore(t, s.name, Exploration{Cast: cast})
		for k := lostAnswer; k < kinds; k++ {
			if *everything || rng.IntN(4) == 0 {
				explore(t, s.name+", and "+names[k], Exploration{Cast: cast, Faults: 1, Kinds: []Kind{k}})
			}
		}
	}
}

func explore(t *testing.T, name string, e Exploration) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		began := time.Now()
		r := e.Go()
		t.Logf("%d states, %d steps, the longest way has %d, %v", r.States, r.Steps, r.Depth, time.Since(began).Round(time.Millisecond))
		if r.Err != nil {
			t.Error(r.Err)
		}
		if !r.Whole {
			t.Error(fmt.Errorf("not all was visited"))
		}
	})
}
