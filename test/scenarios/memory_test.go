//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestLockedMemory: the guard locks its memory where that is allowed, and goes on without where it
// is not.
func TestLockedMemory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		start  []string // what comes before etcdlocker
		locked bool
	}{
		"allowed":     {nil, true},
		"not allowed": {nobodyWith("--memlock=0"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			finish := filepath.Join(programs.OpenDir(t), "finish")
			words := append(tt.start, programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/memory/"+strings.ReplaceAll(name, " ", "-"),
				"--", "sh", "-c", `echo ready; while [ ! -e "$0" ]; do sleep 0.05; done`, finish)
			p := programs.StartCommand(t, nil, exec.Command(words[0], words[1:]...))
			p.Says(p.Stdout, "ready")
			guard := programs.GuardOf(t, p)
			// After it has locked its memory, or has tried to, it waits for SIGCONT.
			etcdtest.Await(t, "the guard to settle", func(context.Context) error {
				if !catches(t, guard, 18) {
					return errors.New("not yet")
				}
				return nil
			})
			if kib := memory(t, guard, "VmLck"); (kib > 0) != tt.locked {
				t.Errorf("%d KiB of the guard are locked", kib)
			}
			if err := os.WriteFile(finish, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if code := p.Code(); code != 0 || p.Said() != "" {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
		})
	}
}

// statusOf returns a field of /proc/PID/status.
func statusOf(t testing.TB, pid int, field string) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(status), "\n"+field+":")
	value, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("no %s in %s", field, status)
	}
	return strings.TrimSpace(value)
}

// catches reports whether a process has a handler for a signal.
func catches(t testing.TB, pid, signal int) bool {
	t.Helper()
	return signals(t, pid, "SigCgt")&(1<<(signal-1)) != 0
}

// signals returns a field of /proc/PID/status that is a set of signals, the lowest bit for signal
// 1.
func signals(t testing.TB, pid int, field string) (set uint64) {
	t.Helper()
	if _, err := fmt.Sscanf(statusOf(t, pid, field), "%x", &set); err != nil {
		t.Fatal(err)
	}
	return set
}
