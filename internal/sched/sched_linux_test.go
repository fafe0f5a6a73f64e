package sched

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestBelow: a command keeps its policy, unless it would run at the guard's priority.
func TestBelow(t *testing.T) {
	ordinary := Policy{kernel.SchedOther, 0}
	above := Policy{kernel.SchedRR, 99}
	fifo := func(priority int) Policy { return Policy{kernel.SchedFIFO, priority} }
	robin := func(priority int) Policy { return Policy{kernel.SchedRR, priority} }
	for _, tt := range []struct {
		given, guard, want Policy
		err                error
	}{
		{ordinary, ordinary.Above(), ordinary, nil},
		{ordinary, ordinary, ordinary, nil},
		{fifo(10), fifo(10).Above(), fifo(10), nil},
		{fifo(10), fifo(10), fifo(9), nil},
		{robin(10), robin(10), robin(9), nil},
		{fifo(99), fifo(99).Above(), fifo(98), nil},
		{fifo(1), fifo(1), fifo(1), ErrLowest},
		{fifo(1), fifo(2), fifo(1), nil},
	} {
		if got, err := tt.given.Below(tt.guard); got != tt.want || err != tt.err {
			t.Errorf("%v below a guard at %v is %v, %v, want %v, %v", tt.given, tt.guard, got, err, tt.want, tt.err)
		}
	}
	if got := fifo(99).Above(); got != above {
		t.Errorf("above the highest is %v", got)
	}
}

// TestRaise: all threads run under the policy, and those that are started later as well.
func TestRaise(t *testing.T) {
	before, err := Inherited()
	if err != nil {
		t.Fatal(err)
	}
	if !before.Above().Raise() {
		etcdtest.Missing(t, "the right to a real-time priority")
	}
	defer before.Raise()
	started, seen := make(chan struct{}), make(chan struct{})
	defer close(seen)
	for range 3 { // each needs a thread of its own, which ends with it
		go func() {
			runtime.LockOSThread()
			started <- struct{}{}
			<-seen
		}()
	}
	for range 3 {
		<-started
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		policy, priority, err := kernel.Scheduler(tid)
		if err == syscall.ESRCH {
			continue // it was ending, as those of an earlier run do
		}
		if got := (Policy{policy, priority}); err != nil || got != before.Above() {
			t.Errorf("a thread runs under %v, %v, want %v", got, err, before.Above())
		}
	}
}

// TestOtherNamespace: where the numbers in /proc are those of another pid namespace, no thread is
// taken for one of this process, and nothing is said to be raised.
func TestOtherNamespace(t *testing.T) {
	const inside = "ETCDLOCK_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		if eachThread(func(tid int) error {
			t.Errorf("it changes thread %d", tid)
			return nil
		}) {
			t.Error("it says that it has changed all threads")
		}
		return
	}
	if err := exec.Command("unshare", "--pid", "--fork", "true").Run(); err != nil {
		etcdtest.Missing(t, "the right to make pid namespaces")
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", os.Args[0], "-test.run=^TestOtherNamespace$")
	cmd.Env = append(os.Environ(), inside+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
