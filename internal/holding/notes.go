package holding

import (
	"sync"
	"time"
)

// Notes are those that a session has to write, in the order in which they are due. One timer serves
// all, and who is released before has left nothing but an empty place.
type Notes struct {
	mu      sync.Mutex
	due     []dueNote
	taken   int // how many have left the front of due
	armed   bool
	writers int
}

// A dueNote is one that is due at some time, unless it has none.
type dueNote struct {
	of *Holding
	at time.Time
}

// mostWriters bounds how many notes of a session are written at a time: what a goroutine for each
// of ten thousand leaves in the heap is a tenth of what the locks themselves take.
const mostWriters = 16

// add has the note of a holding written later.
func (n *Notes) add(h *Holding) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.note.place = n.taken + len(n.due)
	n.due = append(n.due, dueNote{h, time.Now().Add(noteAfter)})
	n.arm(noteAfter)
}

// remove has the note of a holding not written, if that has not begun.
func (n *Notes) remove(h *Holding) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := h.note.place - n.taken; i >= 0 && i < len(n.due) && n.due[i].of == h {
		n.due[i].of = nil
	}
	for last := len(n.due) - 1; last >= 0 && n.due[last].of == nil; last-- {
		n.due = n.due[:last]
	}
}

// arm has the timer ring, if it does not anyway.
func (n *Notes) arm(after time.Duration) {
	if !n.armed {
		n.armed = true
		time.AfterFunc(after, n.ring)
	}
}

// ring has notes that are due written.
func (n *Notes) ring() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed = false
	for n.writers < mostWriters {
		h := n.take()
		if h == nil {
			return
		}
		n.writers++
		go n.write(h)
	}
}

// write writes the note of a holding, and then others that have become due meanwhile.
func (n *Notes) write(h *Holding) {
	for h != nil {
		h.writeNote()
		h = n.next()
	}
}

// next returns a holding whose note is due, nil without one: then its caller writes no more.
func (n *Notes) next() *Holding {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.take()
	if h == nil {
		n.writers--
	}
	return h
}

// take returns the first holding if its note is due. If it will be later, the timer rings then.
func (n *Notes) take() *Holding {
	for len(n.due) > 0 {
		first := n.due[0]
		if after := time.Until(first.at); first.of != nil && after > 0 {
			n.arm(after)
			return nil
		}
		n.due[0] = dueNote{}
		n.due, n.taken = n.due[1:], n.taken+1
		if first.of != nil {
			return first.of
		}
	}
	n.due = nil
	return nil
}
