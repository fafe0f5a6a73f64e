package world

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// run runs a world at random. Faults happen as long as there are some left.
func run(c Cast, faults int, seed uint64) (steps int, trace []string, err error) {
	return runWith(c, faults, seed, nil)
}

func runWith(c Cast, faults int, seed uint64, mutate func(*pb.TxnRequest) *pb.TxnRequest) (steps int, trace []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	rng := rand.New(rand.NewPCG(seed, 1))
	w := New(c)
	w.mutate = mutate
	w.log = func(format string, args ...any) { trace = append(trace, "    "+fmt.Sprintf(format, args...)) }
	for steps = range 4000 {
		var moves []Move
		for _, m := range w.Moves() {
			if !m.Fault || faults > 0 && rng.IntN(8) == 0 {
				moves = append(moves, m)
			}
		}
		if w.Done() {
			if left := w.Left(); len(left) > 0 {
				gone := false
				for _, m := range moves {
					if m.Name == "the lease runs out" || m.Name == "revoke" || m.Name == "the operator deletes its K" {
						m.Do()
						gone = true
						break
					}
				}
				if gone {
					continue
				}
				return steps, trace, fmt.Errorf("left are %q", left)
			}
			return steps, trace, w.broken
		}
		if len(moves) == 0 {
			return steps, trace, fmt.Errorf("stuck")
		}
		m := moves[rng.IntN(len(moves))]
		if m.Fault {
			faults--
		}
		trace = append(trace, m.Name)
		m.Do()
		if w.broken != nil {
			return steps, trace, w.broken
		}
	}
	return steps, trace, fmt.Errorf("no end")
}

var allCasts = []Cast{
	{Private: 2, Turns: 2}, {Private: 3, Turns: 2}, {Session: 2, Turns: 2}, {Session: 3, Private: 1, Turns: 2},
	{Private: 2, Unlinked: 1, Turns: 2}, {Private: 2, Try: 1, Turns: 2}, {Private: 2, Mutexes: 1, Turns: 2}, {Session: 2, Mutexes: 1, Unlinked: 1, Try: 1, Turns: 2},
}

// TestWorld: at random, and with faults, everybody gets the lock in turn, and nothing is left.
func TestWorld(t *testing.T) {
	began, total := time.Now(), 0
	for seed := range uint64(20000) {
		c := allCasts[seed%uint64(len(allCasts))]
		for _, faults := range []int{0, 1, 3} {
			steps, trace, err := run(c, faults, seed)
			total += steps
			if err != nil {
				t.Fatalf("seed %d, %+v, %d faults: %v after %d steps\n%s", seed, c, faults, err, steps, strings.Join(trace, "\n"))
			}
		}
		if testing.Short() && time.Since(began) > time.Second || time.Since(began) > 20*time.Second {
			break
		}
	}
	t.Logf("%d steps in %v", total, time.Since(began))
}
