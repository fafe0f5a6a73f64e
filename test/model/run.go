package model

import (
	"fmt"
	"math/rand/v2"
)

// A Run is a world that goes on at random until all have had their turns, and nothing is left.
type Run struct {
	Cast   Cast
	Faults int    // at most
	Kinds  []Kind // of the faults; nil for all
	Often  int    // a fault is one of so many moves where it can be, 8 if not given
	Seed   uint64
	Most   int // steps, 4000 if not given
	Traced bool
	Mutate Mutation
}

// An Outcome is what a run came to.
type Outcome struct {
	Steps int
	Trace []string // if it is traced
	Err   error
}

// Go makes the run.
func (r Run) Go() (o Outcome) {
	defer func() {
		if p := recover(); p != nil {
			o.Err = fmt.Errorf("panic: %v", p)
		}
	}()
	rng := rand.New(rand.NewPCG(r.Seed, 1))
	w := New(r.Cast)
	w.mutate = r.Mutate
	if r.Traced {
		w.log = func(format string, args ...any) { o.Trace = append(o.Trace, fmt.Sprintf(format, args...)) }
	}
	c := chooser{rng: rng, faults: r.Faults, often: r.Often}
	for k := lostAnswer; k < kinds; k++ {
		c.may[k] = r.Kinds == nil
	}
	for _, k := range r.Kinds {
		c.may[k] = true
	}
	if c.often == 0 {
		c.often = 8
	}
	most := r.Most
	if most == 0 {
		most = 4000
	}
	for o.Steps = 0; o.Steps < most; o.Steps++ {
		done := w.isDone()
		if done && len(w.left()) == 0 {
			return o
		}
		m, ok := c.choose(w.Moves(), done)
		if !ok {
			o.Err = fmt.Errorf("stuck, and left is %q", w.left())
			return o
		}
		if r.Traced {
			o.Trace = append(o.Trace, w.describe(m))
		}
		w.Make(m)
		if w.broken != nil {
			o.Err = w.broken
			return o
		}
	}
	o.Err = fmt.Errorf("no end")
	return o
}

// A chooser chooses what happens next.
type chooser struct {
	rng    *rand.Rand
	faults int // that are left
	often  int
	may    [kinds]bool
}

// choose chooses a move. When all are done nothing happens but what cleans up.
func (c *chooser) choose(all []Move, done bool) (Move, bool) {
	wants := c.faults > 0 && !done && c.rng.IntN(c.often) == 0
	may := !done && c.rng.IntN(4) == 0 // what need not happen, happens seldom
	could := false
	for {
		chosen, n := Move{}, 0
		for _, m := range all {
			isFault := m.Kind.isFault()
			if isFault != wants || isFault && !c.may[m.Kind] || m.Kind == possible && !may && !wants {
				continue
			}
			could = could || m.Kind == sure
			if n++; c.rng.IntN(n) == 0 {
				chosen = m
			}
		}
		switch {
		case n == 0 && wants:
			wants = false
			continue
		case n == 0 || !wants && !could:
			return Move{}, false
		case wants:
			c.faults--
		}
		return chosen, true
	}
}
