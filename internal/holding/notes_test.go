package holding

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestNotesDue: notes are taken in order, each when it is due and not before. Who is released
// leaves nothing that grows.
func TestNotesDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Notes
		n.writers = mostWriters // this test takes them itself
		takes := func(want ...*Holding) {
			t.Helper()
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, h := range want {
				if got := n.take(); got != h {
					t.Errorf("taken %p, not %p", got, h)
				}
			}
			if got := n.take(); got != nil {
				t.Errorf("taken %p as well", got)
			}
		}
		var all [5]Holding
		for i := range all {
			n.add(&all[i])
			time.Sleep(noteAfter / 10)
		}
		takes()
		n.remove(&all[1])
		n.remove(&all[1])
		for range 1000 {
			var short Holding
			n.add(&short)
			n.remove(&short)
		}
		if len(n.due) != len(all) {
			t.Errorf("%d are due later", len(n.due))
		}
		n.remove(&all[4])
		time.Sleep(noteAfter - time.Since(n.due[0].at.Add(-noteAfter)))
		takes(&all[0])
		n.remove(&all[0])
		time.Sleep(noteAfter / 10 * 3)
		takes(&all[2], &all[3])
		if n.due != nil {
			t.Errorf("%d are left", cap(n.due))
		}
		time.Sleep(noteAfter) // the timer rings once more
	})
}

// TestNotesRing: the timer rings for the first, and then for who came later. A released holding is
// not asked about.
func TestNotesRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n Notes
		for range 3 * mostWriters {
			h := &Holding{}
			h.note.over = true // so nothing is sent
			n.add(h)
			time.Sleep(noteAfter / 20)
		}
		time.Sleep(noteAfter)
		synctest.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.due != nil || n.writers != 0 || n.armed || n.taken != 3*mostWriters {
			t.Errorf("%d are due, %d are written, armed %v, %d taken", len(n.due), n.writers, n.armed, n.taken)
		}
	})
}
