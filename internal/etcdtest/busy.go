package etcdtest

import (
	"os/exec"
	"runtime"
	"testing"
)

// KeepBusy keeps all processors busy until the test ends, with processes that let all others go
// before them.
func KeepBusy(t testing.TB) {
	t.Helper()
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("nice", "-n", "19", "sh", "-c", "while :; do :; done")
		if err := startTied(cmd); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
}
