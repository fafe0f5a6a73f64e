//go:build linux

package faults

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// A Result is what came of a trial.
type Result struct {
	Locker  string        `json:"locker"`
	Row     string        `json:"row"` // of the table
	Name    string        `json:"name"`
	Seed    uint64        `json:"seed"`
	User    string        `json:"user"`             // whose the lockers were
	Groups  bool          `json:"groups,omitempty"` // they could make control groups
	Exempt  bool          `json:"exempt,omitempty"` // no promise covers it
	Outcome string        `json:"outcome"`          // that is expected
	Forced  bool          `json:"forced,omitempty"`
	Held    bool          `json:"held"` // the lock was kept
	Overlap time.Duration `json:"overlap"`
	// From the fault to the last sign of life, and from the end of validity to it.
	Death time.Duration `json:"death,omitempty"`
	Late  time.Duration `json:"late,omitempty"`
	// From the fault, or its end, to the next start.
	HandOver time.Duration `json:"hand_over,omitempty"`
	// The holder's command ran on when the next one had run for long.
	Endless bool `json:"endless,omitempty"`
	// Something lived when etcd may have freed the lock.
	Overdue   bool `json:"overdue,omitempty"`
	FalseLoss bool `json:"false_loss,omitempty"`
	// A lock was lost as etcd or the whole machine stood still: the trial was made again.
	Starved  bool     `json:"starved,omitempty"`
	Work     int      `json:"work,omitempty"` // numbers written
	Problems []string `json:"problems,omitempty"`

	// Unpromised is what would have been problems on processors that were less busy: the trial was
	// made again.
	Unpromised []string `json:"unpromised,omitempty"`
}

// The rows of all pairs.
const (
	Pairs       = "two of these at once"
	ForcedPairs = "two of these at once, one of them force"
	ExemptPairs = "two of these at once, one of them exempt"
)

// Rows returns the rows of the table in their order.
func Rows() (rows []string) {
	for _, f := range All() {
		if row := f.inRow(); !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
	}
	return append(rows, Pairs, ForcedPairs, ExemptPairs)
}

func (f Fault) inRow() string {
	if f.row != "" {
		return f.row
	}
	return f.Name
}

// among returns what a round has the fault among, once for all.
func (f Fault) among(short bool) string {
	if short && f.like != "" {
		return f.like
	}
	return f.inRow()
}

func (s Spec) row() string {
	switch {
	case len(s.Faults) == 1:
		return s.Faults[0].inRow()
	case s.exempt():
		return ExemptPairs
	case s.forced():
		return ForcedPairs
	}
	return Pairs
}

// forced reports whether the lock is taken by force.
func (s Spec) forced() bool {
	return slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.forced || f.later && len(s.Faults) > 1 })
}

// exempt reports whether no promise covers the trial.
func (s Spec) exempt() bool {
	return slices.ContainsFunc(s.Faults, func(f Fault) bool { return f.exempt })
}

func (s Spec) result() Result {
	r := Result{Locker: s.Locker.Name, Row: s.row(), Name: s.Name(), Seed: s.Seed, User: s.User, Outcome: "either", Forced: s.forced(), Exempt: s.exempt()}
	if len(s.Faults) == 1 {
		r.Outcome = map[outcome]string{either: "either", keeps: "keeps", loses: "loses"}[s.Faults[0].outcome]
	}
	return r
}

// add adds a result to a file.
func (r Result) add(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(r)
}
