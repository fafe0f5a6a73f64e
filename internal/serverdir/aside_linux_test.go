package serverdir

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestAside: what is started by a process to which orphans fall does not fall to it, and nothing of
// the lock on the directory stays with that process.
func TestAside(t *testing.T) {
	home := t.TempDir()
	const control = "#!/bin/sh\nsleep 1000 > /dev/null 2>&1 3>&- &\necho $! > \"$HOME/pid\"\n"
	if err := os.WriteFile(filepath.Join(home, "etcdlockctl"), []byte(control), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", home+":"+os.Getenv("PATH"))
	t.Setenv("HOME", home)
	if err := kernel.AdoptOrphans(true); err != nil {
		t.Fatal(err)
	}
	defer kernel.AdoptOrphans(false)
	dir := filepath.Join(home, "etcd")
	lock, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := start(t.Context(), dir, lock, 0); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(home, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if err := syscall.Kill(pid, 0); err != nil || kernel.IsChild(pid) {
		t.Errorf("process %d: %v, a child of this process: %v", pid, err, kernel.IsChild(pid))
	}
	own(t, dir).Close()
}
