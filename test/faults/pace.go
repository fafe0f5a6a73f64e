//go:build linux

package faults

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// A pace notes when something stood still that should show itself every few moments: the machine
// itself, or an etcd that is asked. What stands still for the suite does so for the
// lockers as well.
type pace struct {
	tooLong time.Duration // without a sign: a stall
	cancel  context.CancelFunc
	thread  *atomic.Int64 // the id of the thread that looks at the machine; nil for an etcd's
	looking sync.WaitGroup

	mu     sync.Mutex
	last   time.Duration // of the signs
	stalls []stall
	slow   []stall // what took a look some time
}

type stall struct{ from, to time.Duration }

// tooQuick is what a look may take without being noted.
const tooQuick = 20 * time.Millisecond

// newPace begins to look each step. Each of look returns nil for a sign, and several do so side by
// side.
func newPace(step, tooLong time.Duration, look ...func(context.Context) error) *pace {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pace{tooLong: tooLong, cancel: cancel, last: beat.Now()}
	for _, look := range look {
		p.looking.Go(func() {
			ticks := time.NewTicker(step)
			defer ticks.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-ticks.C:
				}
				if begun := beat.Now(); look(ctx) == nil {
					p.sign(begun)
				}
			}
		})
	}
	return p
}

// machinePace notes when a thread of an ordinary priority did not get to run: then nobody else did,
// or only some.
func machinePace() *pace {
	thread := new(atomic.Int64)
	p := newPace(10*time.Millisecond, 30*time.Millisecond, func(context.Context) error {
		if thread.Load() == 0 {
			runtime.LockOSThread()
			thread.Store(int64(unix.Gettid()))
		}
		return nil
	})
	p.thread = thread
	return p
}

// answeringPace notes when none of the members answered a linearizable read.
func answeringPace(t testing.TB, members []*etcdtest.Process) *pace {
	var asks []func(context.Context) error
	for _, m := range members {
		client := etcdtest.Dial(t, m.Config())
		asks = append(asks, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := client.Get(ctx, "/faults", clientv3.WithCountOnly())
			return err
		})
	}
	return newPace(100*time.Millisecond, 300*time.Millisecond, asks...)
}

// loginPace notes how long etcd took for the login of a user whose password stays: the check costs
// it a processor for tens of milliseconds, and who logs in waits for all others that do.
func loginPace(client *clientv3.Client, user string) *pace {
	return newPace(500*time.Millisecond, 2*time.Second, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err := client.Authenticate(ctx, user, password)
		return err
	})
}

func (p *pace) close() {
	p.cancel()
	p.looking.Wait()
}

// sign notes that a look has succeeded that began at some time.
func (p *pace) sign(begun time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := beat.Now()
	if now-begun > tooQuick {
		p.slow = append(p.slow, stall{begun, now})
	}
	if now-p.last > p.tooLong {
		p.stalls = append(p.stalls, stall{p.last, now})
	}
	p.last = now
}

// slowest returns how long the slowest look in a time took.
func (p *pace) slowest(from, to time.Duration) (longest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slow {
		if s.to > from && s.from < to {
			longest = max(longest, s.to-s.from)
		}
	}
	return longest
}

// stalled returns how long all stalls in a time were.
func (p *pace) stalled(from, to time.Duration) (sum time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stalls := p.stalls
	if now := beat.Now(); now-p.last > p.tooLong {
		stalls = append(stalls[:len(stalls):len(stalls)], stall{p.last, now})
	}
	for _, s := range stalls {
		sum += max(0, min(to, s.to)-max(from, s.from))
	}
	return sum
}
