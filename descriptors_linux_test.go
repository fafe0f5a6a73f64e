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
		l := newLock(t, client, fmt.Sprint("/timers/", i), "me")
		mustLock(t, l)
		awaitWatches(t, l, 3*(i+1)) // it is looked after
	}
	if n := timers(t); n > 1 {
		t.Errorf("%d timers", n)
	}
}

// timers counts the descriptors of timers.
func timers(t *testing.T) (n int) {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == "anon_inode:[timerfd]" {
			n++
		}
	}
	return n
}
