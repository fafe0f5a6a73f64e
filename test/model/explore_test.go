package model

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// A property is what must hold of every run.
type property uint8

const (
	oneHolder property = 1 << iota // at most one is at work, and nobody takes a K that is there
	// Without further faults all can have their turn, and nothing is left.
	nobodyStuck
	inOrder      // turns in the order of the line
	growing      // tokens grow from holder to holder
	noStrays     // what a late write would put, its sender reckons with
	noFalseAlarm // who is told of a loss has lost something
	all          = 1<<iota - 1
)

var propertyNames = map[property]string{
	oneHolder: "one holder", nobodyStuck: "nobody stuck", inOrder: "in order", growing: "tokens grow", noStrays: "no strays", noFalseAlarm: "no false alarm",
}

// A violation is how a property was broken: the shortest way there is.
type violation struct {
	property property
	trace    string
}

func (v *violation) String() string { return propertyNames[v.property] + " broken:\n" + v.trace }

// A result is what an exploration came to.
type result struct {
	states int
	depth  int
	broken *violation
}

// An exploration visits, breadth first, every state that a scenario can come to. The next one uses
// its memory again: of a gigabyte, the kernel's part would take half as long as all the rest.
type exploration struct {
	*scenario
	wanted property // the ones that are checked
	states []state
	from   []int32 // the state that a state was first reached from
	table  []int32 // indices into states by hash, 0 is none
	seed   maphash.Seed

	// The states that each state can be relied on to come to, one state's after the other's.
	edges []int32
	ends  []int32 // where in edges those of a state end

	sources []int32 // the states that lead to each state, one state's after the other's
	begins  []int32 // where in sources those of a state begin
}

func (e *exploration) explore(s *scenario, wanted property) result {
	e.scenario, e.wanted, e.seed = s, wanted, maphash.MakeSeed()
	e.states, e.from = append(e.states[:0], state{}), append(e.from[:0], 0) // index 0 is no state
	e.edges, e.ends = e.edges[:0], append(e.ends[:0], 0)
	e.table = zeros(e.table, 1<<12)
	e.add(s.initial(), 0)
	for i := int32(1); int(i) < len(e.states); i++ {
		if v := e.expand(i); v != nil {
			return e.result(v)
		}
	}
	return e.result(e.stuck())
}

// zeros returns a slice of n zeros, in the memory of another one if that is enough.
func zeros[T any](old []T, n int) []T {
	s := slices.Grow(old[:0], n)[:n]
	clear(s)
	return s
}

func (e *exploration) result(v *violation) result {
	depth := 0
	for i := int32(len(e.states) - 1); e.from[i] != 0; i = e.from[i] {
		depth++
	}
	return result{states: len(e.states) - 1, depth: depth, broken: v}
}

// expand visits what comes after a state.
func (e *exploration) expand(i int32) (v *violation) {
	on := false
	e.successors(e.states[i], func(w *world) bool {
		w.crowd()
		if broken := w.broken & e.wanted; broken != 0 {
			v = &violation{broken & -broken, e.trace(i) + line(w)}
			return false
		}
		if w.state == e.states[i] {
			return true
		}
		j := e.add(w.state, i)
		if !w.aside {
			on = true
			e.edges = append(e.edges, j)
		}
		return true
	})
	if v == nil && !on && e.wanted&nobodyStuck != 0 && !e.states[i].finished() {
		v = &violation{nobodyStuck, e.trace(i) + "and there it stays\n"}
	}
	e.ends = append(e.ends, int32(len(e.edges)))
	return v
}

// successors yields each step that can be made from a state.
func (e *exploration) successors(from state, yield func(*world) bool) {
	w := new(world)
	for _, s := range steps {
		for x := range s.times {
			*w = world{state: from, scenario: e.scenario}
			if !s.make(w, x) {
				continue
			}
			w.settle()
			if !yield(w) {
				return
			}
		}
	}
}

// add returns the index of a state, which is noted if it is new.
func (e *exploration) add(s state, from int32) int32 {
	if len(e.states)*2 > len(e.table) {
		e.table = zeros(e.table, 2*len(e.table))
		for i := range e.states[1:] {
			e.table[e.slot(&e.states[i+1])] = int32(i + 1)
		}
	}
	at := e.slot(&s)
	if e.table[at] == 0 {
		e.table[at] = int32(len(e.states))
		e.states, e.from = append(e.states, s), append(e.from, from)
	}
	return e.table[at]
}

// slot is where in the table a state is, or would be.
func (e *exploration) slot(s *state) int {
	at := int(maphash.Comparable(e.seed, *s)) & (len(e.table) - 1)
	for e.table[at] != 0 && e.states[e.table[at]] != *s {
		at = (at + 1) & (len(e.table) - 1)
	}
	return at
}

// stuck finds a state from which no steps that can be relied on lead to where all have had their
// turn. If there is none, then every run that is fair gets there once faults cease.
func (e *exploration) stuck() *violation {
	if e.wanted&nobodyStuck == 0 {
		return nil
	}
	e.begins = zeros(e.begins, len(e.states)+1)
	begins := e.begins
	for _, j := range e.edges {
		begins[j]++
	}
	for i := 1; i < len(begins); i++ {
		begins[i] += begins[i-1]
	}
	e.sources = zeros(e.sources, len(e.edges))
	sources := e.sources
	for i := len(e.states) - 1; i > 0; i-- {
		for _, j := range e.edges[e.ends[i-1]:e.ends[i]] {
			begins[j]--
			sources[begins[j]] = int32(i)
		}
	}
	fine := make([]bool, len(e.states))
	var queue []int32
	for i := range e.states {
		if i != 0 && e.states[i].finished() {
			fine[i], queue = true, append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		j := queue[0]
		queue = queue[1:]
		for _, i := range sources[begins[j]:begins[j+1]] {
			if !fine[i] {
				fine[i], queue = true, append(queue, i)
			}
		}
	}
	for i := 1; i < len(fine); i++ {
		if !fine[i] {
			return &violation{nobodyStuck, e.trace(int32(i)) + "and from there all go round in circles\n"}
		}
	}
	return nil
}

// trace returns the steps to a state.
func (e *exploration) trace(i int32) string {
	var lines []string
	for ; e.from[i] != 0; i = e.from[i] {
		e.successors(e.states[e.from[i]], func(w *world) bool {
			if w.state != e.states[i] {
				return true
			}
			lines = append(lines, line(w))
			return false
		})
	}
	var b strings.Builder
	for n := len(lines) - 1; n >= 0; n-- {
		b.WriteString(lines[n])
	}
	return b.String()
}

func line(w *world) string { return fmt.Sprintf("%-80s | %s\n", w.label, &w.state) }
