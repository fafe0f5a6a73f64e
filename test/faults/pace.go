//go:build linux

package faults

import (
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A pace is a goroutine that does nothing but note when it did not get to run: then nobody else
// did, or only some.
type pace struct {
	stop    chan struct{}
	stopped chan struct{}

	mu     sync.Mutex
	stalls []stall
}

type stall struct{ from, to time.Duration }

// step is how often the pace looks, and what is too long for a step is a stall.
const step, tooLong = 10 * time.Millisecond, 30 * time.Millisecond

func newPace() *pace {
	p := &pace{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(p.stopped)
		ticks := time.NewTicker(step)
		defer ticks.Stop()
		for last := beat.Now(); ; {
			select {
			case <-p.stop:
				return
			case <-ticks.C:
			}
			now := beat.Now()
			if now-last > tooLong {
				p.mu.Lock()
				p.stalls = append(p.stalls, stall{last, now})
				p.mu.Unlock()
			}
			last = now
		}
	}()
	return p
}

func (p *pace) close() {
	close(p.stop)
	<-p.stopped
}

// stalled returns how long all stalls in a time were.
func (p *pace) stalled(from, to time.Duration) (sum time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stalls {
		sum += max(0, min(to, s.to)-max(from, s.from))
	}
	return sum
}
