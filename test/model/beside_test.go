package model

import "testing"

// TestBreaks: whoever is asked to stop does so, nobody starts before it has, and nobody else is
// hit, whatever happens at the same time.
func TestBreaks(t *testing.T) { runBeside(t, breaks) }

// TestPauses: a pause waits for whoever came before it, and keeps everybody else out until it ends,
// whatever happens at the same time.
func TestPauses(t *testing.T) { runBeside(t, pauses) }

// TestNotes: a note is one of who has the lock, is written over nothing, and is erased.
func TestNotes(t *testing.T) { runBeside(t, notes) }

// runBeside runs many casts with one kind of moves, and with each other kind beside it.
func runBeside(t *testing.T, kind Kind) {
	t.Parallel()
	runs := uint64(12)
	switch {
	case *everything:
		runs = 1000
	case testing.Short():
		runs = 3
	}
	n := 0
	for _, cast := range []Cast{
		{Private: 2, Turns: 2}, {Session: 2, Turns: 2}, {Session: 2, Private: 1, Turns: 2}, {Private: 1, Session: 1, Mutexes: 1},
		{Sharing: 2, Private: 1}, {Together: 2, Session: 1, Turns: 2}, {Slots: 3, Turns: 2}, {Sits: 3, Turns: 2}, {Sits: 2, Of: 1, Private: 1},
		{InSets: 2, Private: 1}, {Unlinked: 1, Session: 1, Turns: 2},
	} {
		for with := range kinds {
			for seed := range runs {
				r := Run{Cast: cast, Faults: 3, Kinds: []Kind{kind, with}, Often: 3, Seed: seed}
				if n++; r.Go().Err != nil {
					r.Traced = true
					o := r.Go()
					for _, line := range o.Trace {
						t.Log(line)
					}
					t.Fatalf("%+v: %v", r, o.Err)
				}
			}
		}
	}
	t.Logf("%d runs", n)
}
