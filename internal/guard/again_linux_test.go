package guard

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// again runs the calling test once more in a process of its own, which may change itself for good,
// and returns what it printed. In that process it returns true.
func again(t *testing.T, attr *syscall.SysProcAttr) (out string, here bool) {
	t.Helper()
	const inside = "ETCDLOCK_TEST_AGAIN"
	if os.Getenv(inside) != "" {
		return "", true
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env, cmd.SysProcAttr = append(os.Environ(), inside+"=1"), attr
	printed, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, printed)
	}
	return string(printed), false
}
