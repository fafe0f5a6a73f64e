//go:build linux

package programs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// NeedsNamespaces skips a test where pid namespaces cannot be made.
func NeedsNamespaces(t *testing.T) {
	t.Helper()
	if err := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		etcdtest.Missing(t, "unshare and the right to make pid namespaces")
	}
}

// Nobody is a user with no rights.
const Nobody = 65534

// Users returns the users whose commands are tested, by what finds these: root's are in a control
// group, nobody's are found by the walk over descendants.
func Users() map[string]uint32 {
	if os.Geteuid() != 0 {
		return map[string]uint32{"walk": uint32(os.Geteuid())}
	}
	return map[string]uint32{"group": 0, "walk": Nobody}
}

// OpenDir returns a directory that every user may write to.
func OpenDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ControlGroup makes a control group for a test, and returns its directory.
func ControlGroup(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	mount, err := ControlGroups()
	if err != nil {
		etcdtest.Missing(t, err.Error())
	}
	dir, err := os.MkdirTemp(mount, "test-")
	if err != nil {
		etcdtest.Missing(t, "the right to make control groups")
	}
	t.Cleanup(func() { syscall.Rmdir(dir) })
	return dir
}

// ControlGroups returns the directory at which the second version's hierarchy of control groups is
// mounted.
func ControlGroups() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if about, _, ok := strings.Cut(line, " - cgroup2 "); ok {
			return strings.Fields(about)[4], nil
		}
	}
	return "", errors.New("control groups of the second version")
}
