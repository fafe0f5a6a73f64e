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
	Trials   int    // how many; 0: a short round
	Seed     uint64 // of the first trial; each one after it has the next
	Parallel int    // trials at a time; they mostly wait
	Only     string // the name of a fault, or of a pair
	Record   string // a file to add the results to
	// Whose lockers: Root or Ordinary; empty: the seed says so, where the suite is root's.
	User  string
	Heavy bool // also what takes the whole machine
}

// Register defines the flags for the options.
func (o *Options) Register(flags *flag.FlagSet) {
	flags.IntVar(&o.Trials, "faults.trials", 0, "how many `trials`; 0: each row once, and some pairs")
	flags.Uint64Var(&o.Seed, "faults.seed", uint64(time.Now().UnixNano())%1e9, "the `seed` of the first trial; each one after it has the next")
	flags.IntVar(&o.Parallel, "faults.parallel", 6, "trials at a time")
	flags.StringVar(&o.Only, "faults.only", "", "the `name` of a fault, or of a pair as \"one + another\"; regular trials if empty")
	flags.StringVar(&o.User, "faults.user", "", "whose lockers, \"root\" or \"ordinary\"; empty: as the seed says, if you are root")
	flags.BoolVar(&o.Heavy, "faults.heavy", false, "also fork bombs, 1,000 and 2,500 processes, and processors that are busy many times over")
	flags.StringVar(&o.Record, "faults.record", "", "a `file` to add the results to, a line of JSON for each trial")
}

// A Spec is a trial before it was run.
type Spec struct {
	Locker Locker
	Faults []Fault
	Seed   uint64
	User   string // whose the lockers are
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
	if o.User != "" && o.User != Root && o.User != Ordinary {
		return nil, fmt.Errorf("%q is not a user: %q or %q", o.User, Root, Ordinary)
	}
	if o.Only != "" {
		faults, err := parse(o.Only)
		if err != nil {
			return nil, err
		}
		var plan []Spec
		for i := range max(o.Trials, 1) {
			plan = append(plan, newSpec(o, locker, faults, i))
		}
		return plan, nil
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0))
	var plan []Spec
	for len(plan) < o.Trials || len(plan) == 0 {
		for _, faults := range deal(rng, o, locker) {
			plan = append(plan, newSpec(o, locker, faults, len(plan)))
		}
	}
	if o.Trials > 0 {
		plan = plan[:o.Trials]
	}
	return plan, nil
}

func newSpec(o Options, locker Locker, faults []Fault, number int) Spec {
	s := Spec{Locker: locker, Faults: faults, Seed: o.Seed + uint64(number)}
	s.User = s.user(o.User)
	return s
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

// deal returns the faults that can hit a locker, and for each four of them a pair, or for each
// eight in a short round, in random order. Of faults that are alike a short round has one.
func deal(rng *rand.Rand, o Options, locker Locker) (deck [][]Fault) {
	rows := map[string][]Fault{}
	var names []string
	for _, f := range All() {
		if (locker.ours || f.anyone) && (o.Heavy || !f.heavy) {
			row := f.among(o.Trials == 0)
			if rows[row] == nil {
				names = append(names, row)
			}
			rows[row] = append(rows[row], f)
		}
	}
	// Those that share a row take turns.
	draw := func(row string) Fault { return rows[row][rng.IntN(len(rows[row]))] }
	for _, row := range names {
		deck = append(deck, []Fault{draw(row)})
	}
	single := 4
	if o.Trials == 0 {
		single = 8
	}
	for pairs := len(deck) / single; locker.ours && pairs > 0; {
		a, b := draw(names[rng.IntN(len(names))]), draw(names[rng.IntN(len(names))])
		if a.goesWith(b) {
			deck = append(deck, []Fault{a, b})
			pairs--
		}
	}
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck
}
