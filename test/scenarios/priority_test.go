//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestPolicy: the command runs under the scheduling policy that etcdlocker was started with, below
// the guard's, and is not started where that is not possible.
func TestPolicy(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	if _, err := exec.LookPath("chrt"); err != nil {
		etcdtest.Missing(t, "chrt")
	}
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		start []string // what comes before etcdlocker
		code  int
		says  []string
	}{
		"ordinary":                 {nil, 0, []string{"SCHED_OTHER"}},
		"batch":                    {[]string{"chrt", "-b", "0"}, 0, []string{"SCHED_BATCH"}},
		"real time":                {[]string{"chrt", "-f", "10"}, 0, []string{"SCHED_FIFO", "priority: 10"}},
		"real time, round robin":   {[]string{"chrt", "-r", "10"}, 0, []string{"SCHED_RR", "priority: 10"}},
		"no right to go higher":    {append([]string{"chrt", "-f", "10"}, asNobody...), 0, []string{"SCHED_FIFO", "priority: 9"}},
		"no right, and the lowest": {append([]string{"chrt", "-f", "1"}, asNobody...), 3, []string{"real-time priority 1", "chrt"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := "/policy/" + strings.ReplaceAll(name, " ", "-")
			words := append(tt.start, programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "--", "sh", "-c", "chrt -p $$")
			p := programs.StartCommand(t, nil, exec.Command(words[0], words[1:]...))
			code := p.Code()
			for _, text := range tt.says {
				if code != tt.code || !strings.Contains(p.Stdout.String()+p.Stderr.String(), text) {
					t.Errorf("exit code %d, %q, %q: want %d, %q", code, p.Stdout, p.Stderr, tt.code, text)
				}
			}
			programs.CheckFree(t, s.Client(t), key)
		})
	}
}

// TestSessions: the guard has a session of its own, and with it a share of the processors on many
// machines; the command stays in etcdlocker's, as what is typed is for it.
func TestSessions(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/sessions", "--", "sh", "-c", "echo ready; exec sleep 1000")
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	ours := sessionOf(t, p.Cmd.Process.Pid)
	if sid := sessionOf(t, programs.ChildOf(t, guard)); sid != ours {
		t.Errorf("the command is in session %d, etcdlocker in %d", sid, ours)
	}
	awaitSession(t, guard)
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// TestRealTimeThreads: all threads of a guard run before a real-time command, but for the one that
// reaps it, also on one processor, where Go starts them later.
func TestRealTimeThreads(t *testing.T) {
	t.Parallel()
	if err := exec.Command("chrt", "-f", "10", "true").Run(); err != nil {
		etcdtest.Missing(t, "the right to a real-time priority")
	}
	s := etcdtest.Shared(t)
	p := programs.StartCommand(t, nil, exec.Command("taskset", "-c", "0", "chrt", "-f", "10", programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/threads", "--", "sh", "-c", "echo ready; exec sleep 1000"))
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	awaitSession(t, guard) // and so its threads
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", guard))
	if err != nil || len(threads) < 5 {
		t.Fatalf("%d threads, %v", len(threads), err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		if before := err == nil && attr.Policy == unix.SCHED_RR && attr.Priority == 11; before == (tid == guard) {
			t.Errorf("thread %d of guard %d: %+v, %v", tid, guard, attr, err)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// TestHoldAtLeastGoesFirst: as long as the lock is held, etcdlocker goes before others, also when
// the command has ended: it renews.
func TestHoldAtLeastGoesFirst(t *testing.T) {
	t.Parallel()
	if err := exec.Command("chrt", "-f", "10", "true").Run(); err != nil {
		etcdtest.Missing(t, "the right to a real-time priority")
	}
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-v", "-t", "30", "-r", "0.5", "-k", "/renews-first", "--hold-at-least", "1h", "sh", "-c", "sleep 0.5; echo ran")
	policy := func() uint32 {
		attr, err := unix.SchedGetAttr(p.Cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		return attr.Policy
	}
	guard := programs.GuardOf(t, p)
	etcdtest.Await(t, "a real-time priority", func(context.Context) error {
		if is := policy(); is != unix.SCHED_RR {
			return fmt.Errorf("the policy is %d", is)
		}
		return nil
	})
	p.Says(p.Stdout, "ran")
	programs.AwaitEnd(t, strconv.Itoa(guard))
	p.Renews(3)
	if policy() != unix.SCHED_RR {
		t.Error("who comes late with a renewal loses the lock")
	}
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// awaitSession waits until a guard has a session of its own.
func awaitSession(t testing.TB, guard int) {
	t.Helper()
	etcdtest.Await(t, "the guard's own session", func(context.Context) error {
		if sid := sessionOf(t, guard); sid != guard {
			return fmt.Errorf("the guard %d is in session %d", guard, sid)
		}
		return nil
	})
}

func sessionOf(t testing.TB, pid int) int {
	t.Helper()
	sid, err := unix.Getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	return sid
}

// asNobody has the rest of a command line run as an ordinary user without rights to real time.
var asNobody = nobodyWith("--rtprio=0")

// nobodyWith has the rest of a command line run as an ordinary user with a limit, as prlimit takes
// it.
func nobodyWith(limit string) []string {
	return []string{"prlimit", limit, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}
}

// TestNoKernelTimers: a user who has used up what the kernel allows gets no command, unless that is
// accepted. Then a stopped etcdlocker has its command killed in time all the same, by its guard.
func TestNoKernelTimers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	s := etcdtest.Shared(t)
	client := s.Client(t)
	run := func(key string, options ...string) *programs.Run {
		words := append(nobodyWith("--sigpending=0"), programs.Path("etcdlocker"), "-e", s.Endpoint(), "-t", "4", "-k", key)
		words = append(append(words, options...), "--", "sh", "-c", `echo ready; while :; do sleep 0.05; done`)
		return programs.StartCommand(t, nil, exec.Command(words[0], words[1:]...))
	}
	holder := programs.Locker(t, s.Endpoint(), "-k", "/timers/refused")
	programs.AwaitHeld(t, client, "/timers/refused")
	p := run("/timers/refused") // it does not wait for its turn to say so
	if code := p.Code(); code != 3 || !strings.Contains(p.Stderr.String(), "RLIMIT_SIGPENDING") || !strings.Contains(p.Stderr.String(), "--no-kernel-timers") || p.Stdout.String() != "" {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	programs.CheckFree(t, client, "/timers/refused")

	p = run("/timers/accepted", "--no-kernel-timers")
	p.Says(p.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, "/timers/accepted").Kvs[0].Lease
	p.Signal(syscall.SIGSTOP)
	programs.CheckEndsBefore(t, client, "/timers/accepted", lease)
	p.Signal(syscall.SIGKILL)
	p.Code()
}

// TestTimerSlack: the command has the timer slack that etcdlocker was started with.
func TestTimerSlack(t *testing.T) {
	t.Parallel()
	const ours = 70 * time.Microsecond // not the usual one
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := kernel.TimerSlack()
	defer kernel.SetTimerSlack(before)
	kernel.SetTimerSlack(ours)
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-k", "/slack", "--", "cat", "/proc/self/timerslack_ns")
	if code := p.Code(); code != 0 || p.Stdout.String() != fmt.Sprintln(int(ours)) {
		t.Errorf("exit code %d, %q: want a slack of %d", code, p.Stdout, ours)
	}
}
