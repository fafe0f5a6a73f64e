package model

import (
	"math/bits"
	"strings"
)

// A rev is a revision of etcd's. Only the order of revisions matters, so they are renumbered after
// each step: that makes the number of states finite. 0 is none.
type rev = uint8

// The keys: the places of our contenders, of which the index is the contender's, then the rest.
const (
	ours    = 3 // contenders of our kind
	mutex   = 3 // the Mutex, and its key
	stray   = 4 // a place of which the name was given up, on the lease that two share
	foreign = 5 // a key below K/ that is no place
	lock    = 6 // K
	nothing = 7 // no key
	// As a successor: there was one, but it does not stand there as it did, or it cannot be known.
	spent = 8
)

const names = "ABCMGFK"

// An item is one key with what etcd knows of it; not there if create is 0. By says whose it is, of
// K: 1 + the index of a place, 0 for the operator.
type item struct {
	create, mod rev
	by          uint8
}

// A mark is something that is true of a contender.
type mark uint16

const (
	gone         mark = 1 << iota // its lease is no more, whether it knows or not
	stale                         // its validity has ended: its lease may run out
	doubtful                      // a write that names its place was not answered at its first try
	repeated                      // its release was sent more than once
	watching                      // its watch on what it waits for is confirmed
	event                         // that watch has something to tell
	behindHolder                  // what it waits for holds the lock
	told                          // the watch on its own place has something to tell
	silent                        // its watches have fallen silent
	touched                       // the operator did something to its holding
	forced                        // the operator took the lock away from it by force
	looking                       // the answer to a read from before the grant is still under way
	missed                        // the first change of the tail was not told
	unbound                       // its place has lost its lease
)

// A contender is one of ours: where it is in the protocol, and what it knows.
type contender struct {
	marks   mark
	phase   phase
	then    ending
	turns   uint8 // left, this one included
	before  uint8 // the key it waits for
	next    uint8 // its successor, as it was when it joined
	created rev   // the CreateRevision of its place
	token   rev   // while it waits: of the write to its place that the watch has to tell
	clock   clock
}

// A neighbour is etcd's Mutex.
type neighbour struct {
	phase  phase
	turns  uint8
	before uint8
	event  uint8
	create rev
}

// A request is a write of which the sender no longer awaits the answer. It may be applied at any
// time, or never.
type request struct {
	kind phase // in which it was sent
	who  uint8
	rev  rev // which it names
	// The place it names besides its own: a release the successor's, a leave the one before.
	other   uint8
	renamed bool // the sender's place has another name by now
	moved   bool // the sender has begun anew since
}

// slots is how many late requests there can be: scenarios see to it that they suffice.
const slots = 5

// A state is all there is, canonical and comparable.
type state struct {
	who       [ours]contender
	now, last rev // etcd's revision; the last token
	term      uint8
	keys      [7]item
	tail      uint8 // the place that it names
	mutex     neighbour
	late      [slots]request
	budget    [faults]uint8
}

// A world is a state in which a step is being made, and what there is to say about the step.
type world struct {
	state
	*scenario
	broken property // by this step
	aside  bool     // nobody may rely on this step being made
	label  label
}

// A label is what a step is called in a trace. It is put into words only when a trace is printed.
type label struct {
	text     string
	who, key uint8
}

func (l label) String() string {
	name := func(i uint8) string {
		if i == nothing {
			return "nobody"
		}
		return names[i : i+1]
	}
	return strings.NewReplacer("@", name(l.who), "#", name(l.key)).Replace(l.text)
}

// say names the step: @ stands for who makes it, # for a key.
func (w *world) say(x int, text string, key ...uint8) bool {
	w.label = label{text: text, who: uint8(x), key: nothing}
	if len(key) > 0 {
		w.label.key = key[0]
	}
	return true
}

func (w *world) is(x int, m mark) bool { return w.who[x].marks&m != 0 }
func (w *world) set(x int, m mark)     { w.who[x].marks |= m }
func (w *world) clear(x int, m mark)   { w.who[x].marks &^= m }

// settle makes the state canonical: what cannot matter any more is forgotten, revisions are
// renumbered.
func (w *world) settle() {
	for f := range counted {
		w.budget[f] = min(w.budget[f], w.budget[anyFault])
	}
	w.forgetLate()
	w.forgetOthers()
	w.forgetLast()
	var used uint64
	w.revisions(func(r *rev) { used |= 1 << *r })
	used |= 1
	w.revisions(func(r *rev) { *r = rev(bits.OnesCount64(used & (1<<*r - 1))) })
	for i := range w.late { // in order: which came first does not matter
		for j := i; j > 0 && w.late[j].before(w.late[j-1]); j-- {
			w.late[j], w.late[j-1] = w.late[j-1], w.late[j]
		}
	}
}

// forgetLast forgets the last token if every later one is greater: these are K's revision as it is,
// or a newer one.
func (w *world) forgetLast() {
	if k := w.keys[lock]; w.last == w.now || k.create != 0 && k.mod <= w.last || w.lacks(tokenIsModRevision) {
		return
	}
	newest := rev(0)
	w.now, w.last = 0, 0
	w.revisions(func(r *rev) { newest = max(newest, *r) })
	w.now = newest
}

// forgetOthers forgets what contenders knew of their neighbours and have no use for.
func (w *world) forgetOthers() {
	for x := range w.who {
		c := &w.who[x]
		if !w.stands(x) && c.phase != releasing {
			c.next = nothing
			w.clear(x, missed)
		}
		if !c.phase.waits() && c.phase != withdrawing {
			c.before = nothing
		}
	}
}

func (q request) isOf(x int) bool { return q.kind != idle && int(q.who) == x }

// before puts requests in an order, the empty ones last.
func (q request) before(p request) bool {
	order := func(q request) int {
		n := int(q.kind)<<20 | int(q.who)<<16 | int(q.rev)<<8 | int(q.other)<<4
		if q.renamed {
			n |= 1
		}
		if q.moved {
			n |= 2
		}
		return n
	}
	return order(q) > order(p)
}

// revisions visits every revision in the state.
func (s *state) revisions(visit func(*rev)) {
	visit(&s.now)
	visit(&s.last)
	for i := range s.keys {
		visit(&s.keys[i].create)
		visit(&s.keys[i].mod)
	}
	for i := range s.who {
		visit(&s.who[i].created)
		visit(&s.who[i].token)
	}
	visit(&s.mutex.create)
	for i := range s.late {
		visit(&s.late[i].rev)
	}
}

// String says what is in etcd.
func (s *state) String() string {
	line := make([]string, 0, 5)
	for after := rev(0); ; {
		next := nothing
		for k := range lock {
			if c := s.keys[k].create; c > after && (next == nothing || c < s.keys[next].create) {
				next = k
			}
		}
		if next == nothing {
			break
		}
		line = append(line, names[next:next+1])
		after = s.keys[next].create
	}
	holder := "-"
	if k := s.keys[lock]; k.create != 0 {
		holder = "by hand"
		if k.by != 0 {
			holder = names[k.by-1 : k.by]
		}
	}
	tail := "-"
	if s.tail != nothing {
		tail = names[s.tail : s.tail+1]
	}
	return "K " + holder + ", tail " + tail + ", line " + strings.Join(line, " ")
}
