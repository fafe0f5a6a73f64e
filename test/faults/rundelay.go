//go:build linux

package faults

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A runDelay notes for how long the threads of a process had to wait for a processor, as the kernel
// accounts for it. It notes nothing where the kernel does not (CONFIG_SCHED_INFO).
type runDelay struct {
	pid     int
	threads map[string]time.Duration // by id

	mu    sync.Mutex
	total time.Duration
	notes []delayNote
}

// A delayNote is the total at an instant.
type delayNote struct{ at, total time.Duration }

// newRunDelay looks at a process now and then until done is closed.
func newRunDelay(pid int, done <-chan struct{}) *runDelay {
	d := &runDelay{pid: pid, threads: make(map[string]time.Duration)}
	go func() {
		ticks := time.NewTicker(200 * time.Millisecond)
		defer ticks.Stop()
		for {
			d.look()
			select {
			case <-ticks.C:
			case <-done:
				return
			}
		}
	}()
	return d
}

func (d *runDelay) look() {
	dir := fmt.Sprintf("/proc/%d/task/", d.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // it has ended
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range entries {
		stat, err := os.ReadFile(dir + e.Name() + "/schedstat")
		var ran, waited time.Duration
		if _, parse := fmt.Sscan(string(stat), &ran, &waited); err != nil || parse != nil {
			continue
		}
		// What is less than before is another thread's.
		if before := d.threads[e.Name()]; waited >= before {
			d.total += waited - before
		} else {
			d.total += waited
		}
		d.threads[e.Name()] = waited
	}
	d.notes = append(d.notes, delayNote{beat.Now(), d.total})
}

// in returns the sum of all waits in a time, and up to a look before and after it.
func (d *runDelay) in(from, to time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var first, last time.Duration
	for _, n := range d.notes {
		if n.at <= from {
			first = n.total
		}
		last = n.total
		if n.at >= to {
			break
		}
	}
	return last - first
}
