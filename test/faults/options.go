//go:build linux

package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Options say which trials are run, and how.
type Options struct {
	Trials   int    // how many; 0: each fault once, and some pairs
	Seed     uint64 // of the first trial; each one after it has the next
	Parallel int    // trials at a time; they mostly wait
	Only     string // the name of a fault, or of a pair
	Record   string // a file to add the results to
}

// Register defines the flags for the options.
func (o *Options) Register(flags *flag.FlagSet) {
	flags.IntVar(&o.Trials, "faults.trials", 0, "how many `trials`; 0: each fault once, and some pairs of them")
	flags.Uint64Var(&o.Seed, "faults.seed", uint64(time.Now().UnixNano())%1e9, "the `seed` of the first trial; each one after it has the next")
	flags.IntVar(&o.Parallel, "faults.parallel", 8, "trials at a time")
	flags.StringVar(&o.Only, "faults.only", "", "the `name` of a fault, or of a pair as \"one + another\"; regular trials if empty")
	flags.StringVar(&o.Record, "faults.record", "", "a `file` to add the results to, a line of JSON for each trial")
}

// A Spec is a trial before it was run.
type Spec struct {
	Locker Locker
	Faults []Fault
	Seed   uint64
}

// between joins the names of the faults in a pair.
const between = " + "

// Name says what hits.
func (s Spec) Name() string {
	var names []string
	for _, f := range s.Faults {
		names = append(names, f.Name)
	}
	return strings.Join(names, between)
}

// Plan lists trials for a locker.
func Plan(o Options, locker Locker) ([]Spec, error) {
	if o.Only != "" {
		faults, err := parse(o.Only)
		if err != nil {
			return nil, err
		}
		var plan []Spec
		for i := range max(o.Trials, 1) {
			plan = append(plan, Spec{locker, faults, o.Seed + uint64(i)})
		}
		return plan, nil
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	var plan []Spec
	for len(plan) < o.Trials || len(plan) == 0 {
		for _, faults := range deal(rng, locker) {
			plan = append(plan, Spec{locker, faults, o.Seed + uint64(len(plan))})
		}
	}
	if o.Trials > 0 {
		plan = plan[:o.Trials]
	}
	return plan, nil
}

// parse finds a fault, or a pair, by its name.
func parse(name string) ([]Fault, error) {
	var found []Fault
	for part := range strings.SplitSeq(name, between) {
		n := len(found)
		for _, f := range All() {
			if f.Name == part {
				found = append(found, f)
			}
		}
		if len(found) == n {
			return nil, fmt.Errorf("no fault is called %q", part)
		}
	}
	return found, nil
}

// deal returns the faults that can hit a locker, and for each four of them a pair, in random order.
func deal(rng *rand.Rand, locker Locker) (deck [][]Fault) {
	var all []Fault
	rows := map[string]int{} // how many faults share one
	for _, f := range All() {
		if locker.ours || f.anyone {
			all = append(all, f)
			rows[f.row]++
		}
	}
	// Those that share a row take turns.
	for _, f := range all {
		if f.row == "" || rng.IntN(rows[f.row]) == 0 {
			deck = append(deck, []Fault{f})
		}
	}
	for pairs := len(deck) / 4; locker.ours && pairs > 0; {
		a, b := all[rng.IntN(len(all))], all[rng.IntN(len(all))]
		if a.goesWith(b) {
			deck = append(deck, []Fault{a, b})
			pairs--
		}
	}
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}
