//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/alive"
)

// Marked returns the processes that run with a variable in their environment, but none of another
// run of the tests, and the directory in /proc of a thread of each.
func Marked(variable string) map[int]string {
	return etcdtest.Processes(variable, runVariable+"="+built)
}

// Kill kills what [Marked] has found.
func Kill(found map[int]string) {
	for pid := range found {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// AwaitTreeEnd waits until nothing of a lock's command runs.
func AwaitTreeEnd(t testing.TB, key string) {
	t.Helper()
	etcdtest.Await(t, "the whole tree to end", func(context.Context) error { return TreeRuns(key) })
}

// TreeRuns returns an error as long as the command of a lock, or something that it has started, is
// there.
func TreeRuns(key string) error {
	if left := Marked("ETCD_LOCK_KEY=" + key); len(left) > 0 {
		return fmt.Errorf("running: %v", left)
	}
	return nil
}

// GuardOf waits for the guard of an etcdlocker, which is its only child.
func GuardOf(t testing.TB, p *Run) int {
	t.Helper()
	return ChildOf(t, p.Cmd.Process.Pid)
}

// ReadyGuardOf waits for the guard of an etcdlocker to have prepared itself, where that shows: it
// has made a control group.
func ReadyGuardOf(t testing.TB, p *Run) int {
	t.Helper()
	guard := GuardOf(t, p)
	if _, err := ControlGroups(); err == nil && os.Geteuid() == 0 {
		etcdtest.Await(t, "the guard to be ready", func(context.Context) error {
			if len(p.groups()) == 0 {
				return errors.New("it has made no group")
			}
			return nil
		})
	}
	return guard
}

// ChildOf waits for the only child of a process.
func ChildOf(t testing.TB, parent int) (child int) {
	t.Helper()
	etcdtest.Await(t, "a child", func(context.Context) error {
		children := etcdtest.Children(parent)
		if len(children) == 0 {
			return errors.New("it has none")
		}
		child = children[0]
		return nil
	})
	return child
}

// StubbornTree is a command with a child and a grandchild in a session of its own, which all ignore
// TERM.
var StubbornTree = []string{"sh", "-c", `trap '' TERM; setsid sh -c 'sleep 1000 & wait' > /dev/null 2>&1 & sleep 1000 & echo ready; while :; do sleep 0.05; done`}

// Running returns what [Marked] returns, without the processes that execute nothing any more: a
// busy machine may need some time to end what was killed.
func Running(variable string) map[int]string {
	found := Marked(variable)
	maps.DeleteFunc(found, func(pid int, _ string) bool { return !alive.Process(pid) })
	return found
}

// AwaitEnd waits until a process is no more: it was killed and waited for.
func AwaitEnd(t testing.TB, pid string) {
	t.Helper()
	etcdtest.Await(t, "process "+pid+" to end", func(context.Context) error {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return nil
		}
		// The main thread can be dead long before the others, and with them the open files.
		threads, err := os.ReadDir("/proc/" + pid + "/task")
		if err != nil || strings.Contains(string(stat), ") Z ") && len(threads) == 1 {
			return nil
		}
		return errors.New("it runs")
	})
}
