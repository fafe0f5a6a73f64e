//go:build linux

package faults

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// TestRunDelay: a process whose threads want more processors than there are waits for them.
func TestRunDelay(t *testing.T) {
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		etcdtest.Skip(t, "the kernel does not account for waits (CONFIG_SCHED_INFO)")
	}
	done := make(chan struct{})
	d := newRunDelay(os.Getpid(), done)
	defer close(done)
	begun := beat.Now()
	etcdtest.KeepBusy(t)
	var end atomic.Bool
	defer end.Store(true)
	go func() {
		for !end.Load() {
		}
	}()
	etcdtest.Await(t, "waits", func(ctx context.Context) error {
		if waited := d.in(begun, beat.Now()); waited < 10*time.Millisecond {
			return fmt.Errorf("it has waited for %v", waited)
		}
		return nil
	})
}

// TestRunDelayIn: the waits in a time are those up to a look before and after it.
func TestRunDelayIn(t *testing.T) {
	d := &runDelay{notes: []delayNote{{10, 1}, {20, 3}, {30, 7}, {40, 15}}}
	for _, tt := range []struct{ from, to, want time.Duration }{
		{20, 30, 4}, {25, 26, 4}, {0, 5, 1}, {35, 100, 8}, {0, 100, 15}, {50, 60, 0},
	} {
		if got := d.in(tt.from, tt.to); got != tt.want {
			t.Errorf("from %d to %d: %d, want %d", tt.from, tt.to, got, tt.want)
		}
	}
	if (*runDelay)(nil).in(0, 1) != 0 {
		t.Error("nobody has waited")
	}
}
