package etcdlock_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestTimersOfManyLocks: all locks of a process share one timer of the kernel's.
func TestTimersOfManyLocks(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	for i := range 20 {
		l := newHolder(t, client, fmt.Sprint("/timers/", i), "me")
		awaitWatches(t, l, 3*(i+1)) // it is looked after
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	timers := 0
	for _, fd := range open {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == "anon_inode:[timerfd]" {
			timers++
		}
	}
	if timers > 1 {
		t.Errorf("%d timers", timers)
	}
}
