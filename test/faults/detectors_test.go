//go:build linux

package faults

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestDetectors: a locker that breaks a promise is noticed, each time for the right reason.
func TestDetectors(t *testing.T) {
	if options.Only != "" {
		etcdtest.Skip(t, "-faults.only is about a regular trial")
	}
	s := newSuite(t, options, programs, time.Minute)
	s.patience = 8 * time.Second // what is wrong for good needs no more
	tests := []struct {
		defect, fault string
		notices       string // what one of the problems begins with; between two that do, a |
	}{
		{"ignores loss", "network silent", "overlap: two commands"},
		{unguarded, "etcdlocker killed", "overlap: two commands"},
		// The kernel may let it go on.
		{unguarded, "etcdlocker killed; the command is stopped", "overlap: "},
		{"releases before death", "key deleted; the command ignores TERM", "overlap: two commands"},
		{"waits too long", "network silent", "death: "},
		{"gives up", "network slow (100 ms each way)", "loss: "},
		// On a busy machine it gives up when the network is back, and by then nothing was lost.
		{"has no patience", "network silent, not for long", "loss: |end: the exit code"},
		{"swallows the exit code", "key deleted", "end: the exit code"},
		{"starts late", "key deleted", "turn: "},
		{"lets others pass", "connections reset", "turn: the waiters"},
		{"leaves its lease", "connections reset", "left: "},
		{"leaves a process", "command killed", "left: process"},
		{"hands out an old token", "key deleted", "history: "},
		{"leaves a control group", "frozen with its control group", "left: /"},
		{"ignores loss", "frozen with its control group", "overlap: what was frozen"},
		{"ignores loss", "frozen by an outer etcdlocker", "overlap: two commands"},
		{"kills its command alone", "network silent; the command has 200 processes", "overlap: not dead yet"},
		{"kills its command alone", "network silent; the command forks and exits without pause", "death: "},
		{unguarded, "etcdlocker killed; the command has no death signal", "overlap: two commands"},
		{"waits too long", "network silent; processors busy", "death: "},
		{"needs no timers", "etcdlocker stopped; no kernel timers", "refusal: "},
		{"logs in once", "etcd forgets all tokens", "loss: "},
		{firstAlone, "command killed; several keys", "locks: "},
		{alwaysShares, "command killed; shared", "overlap: two commands"},
		{alwaysShares, "place deleted; shared", "overlap: a command"},
		{overbooks, "command killed; one of two slots", "overlap: two commands"},
		{overbooks, "network silent; one of two slots", "overlap: two commands"},
	}
	var trials sync.WaitGroup
	turns := make(chan struct{}, max(options.Parallel, 1))
	rand.Shuffle(len(tests), func(i, j int) { tests[i], tests[j] = tests[j], tests[i] })
	for _, tt := range tests {
		trials.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			t.Run(tt.defect+", "+tt.fault, func(t *testing.T) {
				s.skipIfLate(t)
				faults, err := parse(tt.fault)
				if err != nil {
					t.Fatal(err)
				}
				spec := newSpec(options, broken(tt.defect), faults, 0)
				if tt.notices == "left: /" {
					spec.User = Root // it can make a group
				}
				results, trial := s.telling(t, spec, func(Result, *trial) {})
				result := results[len(results)-1]
				problems := slices.Concat(result.Problems, result.Unpromised)
				for _, problem := range problems {
					for notice := range strings.SplitSeq(tt.notices, "|") {
						if strings.HasPrefix(problem, notice) {
							return
						}
					}
				}
				if result.Starved && len(problems) == 0 {
					etcdtest.Skip(t, untold)
				}
				t.Errorf("it was not noticed; problems: %q", problems)
				trial.log(t)
			})
		})
	}
	trials.Wait()
}

// The defects of an etcdlocker whose guard is never started, of one that takes only the first of
// several locks, of one for which a lock that is shared is free for everybody, and of one that
// gives one slot more than there are.
const (
	unguarded    = "has no guard"
	firstAlone   = "takes the first lock alone"
	alwaysShares = "shares the lock with who wants it alone"
	overbooks    = "gives one slot more than there are"
)

// broken is a locker with a defect.
func broken(defect string) Locker {
	if options, is := map[string]func([]string) []string{
		unguarded:    func(all []string) []string { return append(all, "--unguarded") },
		firstAlone:   func([]string) []string { return nil },
		alwaysShares: func(all []string) []string { return append(all, "-s") },
		overbooks:    func(all []string) []string { return append(all, "--slots", strconv.Itoa(slots+1)) },
	}[defect]; is {
		real := programs.Etcdlocker
		return Locker{Name: defect, ours: true, Command: func(j Job) *exec.Cmd {
			j.Options = options(j.Options)
			return real.Command(j)
		}}
	}
	return Locker{Name: defect, ours: true, Command: func(j Job) *exec.Cmd {
		args := []string{defect, strings.Join(j.Endpoints, ","), j.Key, j.ID, strconv.Itoa(int(j.TTL / time.Second))}
		return exec.Command(filepath.Join(programs.dir, "broken"), append(args, j.Command...)...)
	}}
}

// TestModels: what is no history of a mutex, of tokens or of a counter is noticed.
func TestModels(t *testing.T) {
	op := func(client int, input any, call, end int64, output any) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: input, Call: call, Return: end, Output: output}
	}
	tests := []struct {
		name    string
		model   porcupine.Model
		history []porcupine.Operation
		right   bool
	}{
		{"in turn", mutexModel, []porcupine.Operation{op(1, true, 0, 1, nil), op(2, true, 0, 4, nil), op(1, false, 2, 3, nil), op(2, false, 5, 6, nil)}, true},
		{"both inside", mutexModel, []porcupine.Operation{op(1, true, 0, 1, nil), op(2, true, 0, 2, nil), op(1, false, 3, 4, nil), op(2, false, 5, 6, nil)}, false},
		{"growing", tokenModel, []porcupine.Operation{op(1, nil, 0, 1, int64(7)), op(2, nil, 0, 2, int64(9))}, true},
		{"the same twice", tokenModel, []porcupine.Operation{op(1, nil, 0, 1, int64(7)), op(2, nil, 0, 2, int64(7))}, false},
		{"back", tokenModel, []porcupine.Operation{op(1, nil, 0, 1, int64(7)), op(2, nil, 2, 3, int64(6))}, false},
		{"counted", counterModel, []porcupine.Operation{op(1, 1, 0, 1, written), op(1, 2, 2, 3, written), op(2, 2, 2, 5, refusal), op(2, 3, 6, 7, written)}, true},
		{"lost", counterModel, []porcupine.Operation{op(1, 1, 0, 3, written), op(2, 1, 1, 2, written)}, false},
		{"skipped", counterModel, []porcupine.Operation{op(1, 1, 0, 1, written), op(1, 3, 2, 3, written)}, false},
		{"unknown, written", counterModel, []porcupine.Operation{op(1, 1, 0, int64(forever), unknown), op(2, 2, 2, 3, written)}, true},
		{"unknown, never written", counterModel, []porcupine.Operation{op(1, 1, 0, int64(forever), unknown), op(2, 1, 2, 3, written)}, true},
		{"refused, and written", counterModel, []porcupine.Operation{op(1, 1, 0, 1, refusal), op(2, 2, 2, 3, written)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := linearizable(tt.name, tt.model, tt.history); (err == nil) != tt.right {
				t.Error(err)
			}
		})
	}
}
