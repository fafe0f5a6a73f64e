//go:build linux

package alive

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestProcess: what is stopped or frozen lives, and what is killed meanwhile does not, though the
// kernel lets it exist.
func TestProcess(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	pid := sleep.Process.Pid
	t.Cleanup(func() {
		sleep.Process.Kill()
		sleep.Wait()
	})
	want := func(what string, is bool) {
		t.Helper()
		if Process(pid) != is {
			t.Errorf("%s: Process is %v", what, !is)
		}
	}
	want("running", true)
	syscall.Kill(pid, syscall.SIGSTOP)
	want("stopped", true)
	syscall.Kill(pid, syscall.SIGCONT)

	group := freezer(t)
	for _, write := range [][2]string{{"cgroup.procs", fmt.Sprint(pid)}, {"freezer.state", "FROZEN"}} {
		if err := os.WriteFile(filepath.Join(group, write[0]), []byte(write[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if state, _ := os.ReadFile(filepath.Join(group, "freezer.state")); strings.TrimSpace(string(state)) == "FROZEN" {
			break
		}
	}
	want("frozen", true)
	syscall.Kill(pid, syscall.SIGKILL)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, pid)); err != nil {
		t.Fatal("the kernel has ended a frozen process: ", err)
	}
	want("frozen and killed", false)
}

// freezer makes a group of the first version's freezer, where what is killed stays as it is until
// it is let go.
func freezer(t *testing.T) string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[2] == "cgroup" && strings.Contains(","+fields[3]+",", ",freezer,") {
			dir, err := os.MkdirTemp(fields[1], "faults-")
			if err != nil {
				break
			}
			t.Cleanup(func() {
				os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
				for range 500 {
					if syscall.Rmdir(dir) == nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				t.Errorf("%s is left", dir)
			})
			return dir
		}
	}
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	etcdtest.Skip(t, "no control groups of the first version, which cannot be installed")
	return ""
}
