//go:build linux

package faults

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// suite is what the trials of a run share.
type suite struct {
	options  Options
	programs Programs
	worlds   *worlds
	pace     *pace
	patience time.Duration // how much longer than it should take anything is waited for, to see it at all

	mu      sync.Mutex
	results []Result
}

func newSuite(t *testing.T, o Options, programs Programs) *suite {
	s := &suite{options: o, programs: programs, worlds: newWorlds(t), pace: newPace(), patience: 20 * time.Second}
	t.Cleanup(s.pace.close)
	return s
}

// Run runs trials, several at a time, each as a subtest, and returns the results in no particular order. The processes of
// etcd need etcdtest.Main in TestMain.
func Run(t *testing.T, o Options, programs Programs, plan []Spec) []Result {
	s := newSuite(t, o, programs)
	next := make(chan Spec)
	var workers sync.WaitGroup
	for range max(o.Parallel, 1) {
		workers.Go(func() {
			for spec := range next {
				t.Run(spec.Locker.Name+"/"+strings.ReplaceAll(spec.Name(), " ", "_"), func(t *testing.T) { s.trial(t, spec) })
			}
		})
	}
	for _, spec := range plan {
		next <- spec
	}
	close(next)
	workers.Wait()
	return s.results
}

// trial runs a trial, records what came of it, and fails if it is not as promised.
func (s *suite) trial(t *testing.T, spec Spec) {
	result, trial := s.try(t, spec)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results = append(s.results, result)
	if s.options.Record != "" {
		if err := result.add(s.options.Record); err != nil {
			t.Error(err)
		}
	}
	if len(result.Problems) == 0 {
		return
	}
	for _, problem := range result.Problems {
		t.Error(problem)
	}
	trial.log(t)
	t.Logf("once more: go test ./test/faults -run TestFaults -faults.only=%q -faults.seed=%d", spec.Name(), spec.Seed)
}

// try runs a trial.
func (s *suite) try(t *testing.T, spec Spec) (Result, *trial) {
	var needs need
	for _, f := range spec.Faults {
		needs, _ = needs.with(f.need)
	}
	if needs.size == 0 {
		needs.size = []int{1, 3}[spec.Seed%2]
	}
	world, giveBack := s.worlds.take(needs)
	defer giveBack()
	trial := &trial{suite: s, spec: spec, ctx: etcdtest.Context(t), world: world, result: spec.result()}
	trial.run(t)
	return trial.result, trial
}

// log logs what the lockers have said.
func (t *trial) log(tb testing.TB) {
	for _, p := range t.players() {
		if p != nil && p.stderr != nil {
			tb.Logf("%s has written:\n%s", p.name, p.stderr)
		}
	}
}
