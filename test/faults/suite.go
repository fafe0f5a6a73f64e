//go:build linux

package faults

import (
	"fmt"
	"slices"
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
	groups   string    // where control groups can be made; empty: nowhere
	pace     *pace     // of the machine
	late     time.Time // from then on a short round begins no more trials
	// How much longer than it should take anything is waited for, to see it at all.
	patience time.Duration

	mu      sync.Mutex
	results []Result
}

// lastTrial is what a trial takes at most on a slow machine.
const lastTrial = 100 * time.Second

// newSuite returns a suite that ends after some time, if it is of a short round: trials are made in
// another order each time, so it is not always the same ones that a slow machine leaves out.
func newSuite(t *testing.T, o Options, programs Programs, within time.Duration) *suite {
	late := time.Now().Add(within)
	// Others had their turn before, and go test counts from before that.
	if deadline, ok := t.Deadline(); ok && deadline.Add(-lastTrial).Before(late) {
		late = deadline.Add(-lastTrial)
	}
	s := &suite{groups: groupsOf(), options: o, programs: programs, worlds: newWorlds(t), pace: machinePace(), patience: 20 * time.Second, late: late}
	t.Cleanup(s.pace.close)
	return s
}

// Run runs trials, several at a time, each as a subtest, and returns the results in no particular
// order. Those that load the machine come last. A trial for which the machine lacks something is a
// counted skip, or an error: see [etcdtest.Missing]. The processes of etcd need etcdtest.Main in
// TestMain.
func Run(t *testing.T, o Options, programs Programs, plan []Spec) []Result {
	s := newSuite(t, o, programs, 100*time.Second)
	var light, loading []Spec
	for _, spec := range plan {
		if spec.units() > 0 {
			loading = append(loading, spec)
		} else {
			light = append(light, spec)
		}
	}
	s.run(t, light, max(o.Parallel, 1), func(Spec) int { return 1 })
	s.raise()
	s.run(t, loading, loadUnits, Spec.units)
	return s.results
}

// units is the part of loadUnits that the trial takes.
func (s Spec) units() (n int) {
	for _, f := range s.Faults {
		n = max(n, f.units)
	}
	return n
}

// run runs trials, as many at a time as there are units for.
func (s *suite) run(t *testing.T, plan []Spec, units int, takes func(Spec) int) {
	var trials sync.WaitGroup
	free := make(chan struct{}, units)
	for _, spec := range plan {
		for range takes(spec) {
			free <- struct{}{}
		}
		trials.Go(func() {
			defer func() {
				for range takes(spec) {
					<-free
				}
			}()
			t.Run(spec.Locker.Name+"/"+strings.ReplaceAll(spec.Name(), " ", "_"), func(t *testing.T) { s.trial(t, spec) })
		})
	}
	trials.Wait()
}

// trial runs a trial, again if it tells nothing, records what came of it, and fails if it is not as
// promised.
func (s *suite) trial(t *testing.T, spec Spec) {
	s.skipIfLate(t)
	results, last := s.telling(t, spec, func(result Result, trial *trial) { s.note(t, spec, result, trial) })
	switch why, isUntold := verdict(results); {
	case t.Failed():
	case why != "":
		t.Error(why)
		last.log(t)
	case isUntold:
		etcdtest.Skip(t, untold)
	}
}

// verdict returns why something is wrong though no single one of some trials says so, and whether
// nothing is known. What is not promised on such a busy machine is wrong if it is so in each of
// mostTrials: of fewer, as there was no time for more, nothing is known.
func verdict(results []Result) (why string, isUntold bool) {
	last := results[len(results)-1]
	if !last.Starved {
		return "", false
	}
	if len(results) < mostTrials || slices.ContainsFunc(results, func(r Result) bool { return len(r.Unpromised) == 0 }) {
		return "", true
	}
	return fmt.Sprintf("in each of %d trials, and in the last one: %s", mostTrials, strings.Join(last.Unpromised, "; ")), false
}

// untold is why nothing is said of what was tried.
const untold = "in each of the trials made etcd did not answer for too long, or the machine was too busy"

// skipIfLate skips a trial of a short round for which there is no time.
func (s *suite) skipIfLate(t *testing.T) {
	if s.isLate() {
		etcdtest.Skip(t, "a short round ends on a slow machine before it has made all trials")
	}
}

func (s *suite) isLate() bool {
	return s.options.Trials == 0 && s.options.Only == "" && time.Now().After(s.late)
}

// mostTrials is how often a trial is made that tells nothing.
const mostTrials = 3

// telling runs a trial, if it can run here, until it tells something, hands out each one, and
// returns all results, and the last trial.
func (s *suite) telling(t *testing.T, spec Spec, each func(Result, *trial)) (results []Result, trial *trial) {
	s.checkDemand(t, spec)
	for range mostTrials {
		var result Result
		result, trial = s.try(t, spec)
		results = append(results, result)
		each(result, trial)
		if !result.Starved || len(result.Problems) > 0 || s.isLate() {
			break
		}
	}
	return results, trial
}

// note records what came of a trial.
func (s *suite) note(t *testing.T, spec Spec, result Result, trial *trial) {
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

// log logs what the lockers have said, and how to make the trial once more.
func (t *trial) log(tb testing.TB) {
	for _, p := range t.players() {
		if p != nil && p.stderr != nil {
			tb.Logf("%s has written:\n%s", p.name, p.stderr)
		}
	}
	tb.Logf("once more: go test ./test/faults -run TestFaults -faults.only=%q -faults.seed=%d -faults.user=%s", t.spec.Name(), t.spec.Seed, t.spec.User)
}
