package model

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Exploration visits, breadth first, every state that a cast can come to with some faults.
type Exploration struct {
	Name   string
	Cast   Cast
	Faults int
	Kinds  []Kind    // of the faults; nil for all
	Most   int       // states that are visited, 0 for all
	Until  time.Time // no more are visited after it, unless it is zero
	Mutate Mutation

	keeper *keeper
	may    [kinds]bool
	index  map[uint64]int32
	from   []int32 // the state that a state was first reached from
	by     []uint8 // by which of its moves
	edges  []int32 // pairs of states: the second follows the first if one waits for long enough
	ended  []int32 // states in which all are done, and nothing is left
	level  []reached
	next   []reached
	steps  int
}

// A reached is a state that was reached.
type reached struct {
	*World
	index  int32
	faults int
}

// A Result is what an exploration came to.
type Result struct {
	States, Steps, Depth int
	Whole                bool // all states were visited
	Err                  error
}

// Go explores.
func (e *Exploration) Go() Result {
	e.keeper, e.index = newKeeper(), make(map[uint64]int32)
	for k := lostAnswer; k < kinds; k++ {
		e.may[k] = e.Kinds == nil || slices.Contains(e.Kinds, k)
	}
	e.reach(e.begin(), e.Faults, -1, 0)
	r := Result{Whole: true}
	for ; len(e.next) > 0 && r.Err == nil; r.Depth++ {
		e.level, e.next = e.next, nil
		for i := range e.level {
			if r.Err = e.expand(e.level[i]); r.Err != nil {
				break
			}
			e.level[i].World = nil
			if e.isEnough() {
				r.Whole, e.next = false, nil
				break
			}
		}
	}
	if r.Err == nil && r.Whole {
		r.Err = e.stuck()
	}
	r.States, r.Steps = len(e.from), e.steps
	return r
}

// isEnough reports whether no more states are to be visited.
func (e *Exploration) isEnough() bool {
	return e.Most > 0 && len(e.from) >= e.Most || !e.Until.IsZero() && time.Now().After(e.Until)
}

// begin returns the first state.
func (e *Exploration) begin() *World {
	w := New(e.Cast)
	w.mutate = e.Mutate
	return w
}

// reach notes a state, and returns its index.
func (e *Exploration) reach(w *World, faults int, from int32, by int) int32 {
	key := e.keeper.key(w, int64(faults))
	if i, ok := e.index[key]; ok {
		return i
	}
	i := int32(len(e.from))
	e.index[key] = i
	e.from, e.by = append(e.from, from), append(e.by, uint8(by))
	if w.isFinished() {
		e.ended = append(e.ended, i)
	}
	e.next = append(e.next, reached{w, i, faults})
	return i
}

// expand makes each move that can be made in a state.
func (e *Exploration) expand(s reached) (err error) {
	all := s.Moves()
	for i, m := range all {
		faults := s.faults
		if m.Kind.isFault() {
			if faults--; faults < 0 || !e.may[m.Kind] {
				continue
			}
		}
		w := s.World
		if i < len(all)-1 {
			w = s.Clone()
		}
		e.steps++
		if err := attempt(w, m); err != nil {
			return fmt.Errorf("%w\n%s", err, e.trace(s.index, i))
		}
		j := e.reach(w, faults, s.index, i)
		if m.Kind == sure {
			e.edges = append(e.edges, s.index, j)
		}
	}
	return nil
}

// attempt makes a move, and returns what breaks.
func attempt(w *World, m Move) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	w.Make(m)
	return w.broken
}

// stuck finds a state from which no moves that happen of themselves lead to an end.
func (e *Exploration) stuck() error {
	begins := make([]int32, len(e.from)+1)
	for i := 1; i < len(e.edges); i += 2 {
		begins[e.edges[i]]++
	}
	for i := 1; i < len(begins); i++ {
		begins[i] += begins[i-1]
	}
	sources := make([]int32, len(e.edges)/2)
	for i := 0; i < len(e.edges); i += 2 {
		to := e.edges[i+1]
		begins[to]--
		sources[begins[to]] = e.edges[i]
	}
	fine := make([]bool, len(e.from))
	queue := slices.Clone(e.ended)
	for _, i := range queue {
		fine[i] = true
	}
	for len(queue) > 0 {
		j := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, i := range sources[begins[j]:begins[j+1]] {
			if !fine[i] {
				fine[i], queue = true, append(queue, i)
			}
		}
	}
	if i := slices.Index(fine, false); i >= 0 {
		return fmt.Errorf("nothing leads to an end from here\n%s", e.trace(int32(i), -1))
	}
	return nil
}

// trace returns the moves to a state, and the one that is made there, unless it is -1.
func (e *Exploration) trace(at int32, last int) string {
	var path []int
	if last >= 0 {
		path = append(path, last)
	}
	for ; e.from[at] >= 0; at = e.from[at] {
		path = append(path, int(e.by[at]))
	}
	slices.Reverse(path)
	var lines []string
	w := e.begin()
	w.log = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, i := range path {
		m := w.Moves()[i]
		lines = append(lines, w.describe(m))
		if err := attempt(w, m); err != nil {
			break
		}
	}
	return strings.Join(lines, "\n")
}
