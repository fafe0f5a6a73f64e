package kernel_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// lockedMemory is what /proc says of this process, in KiB.
func lockedMemory() (kib int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1
	}
	_, rest, _ := strings.Cut(string(status), "\nVmLck:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return -1
	}
	return kib
}

// TestLockMemory: a process that locks its memory has some of it locked, where it may.
func TestLockMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), locksMemory+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 3 || lines[1] != "<nil>" {
		t.Fatalf("it says %q", lines)
	}
	var before, after int
	if _, err := fmt.Sscan(lines[0]+" "+lines[2], &before, &after); err != nil {
		t.Fatal(err)
	}
	if before != 0 || after < 1000 {
		t.Errorf("%d KiB were locked, and then %d KiB", before, after)
	}
}
