package guard

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestSignalWithoutItsCall: where the kernel refuses to signal by descriptor, the command gets the
// signal all the same. The refusal is that of a descriptor that is not a process's.
func TestSignalWithoutItsCall(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, fd := range map[string]int{"refused": int(null.Fd()), "no descriptor": -1} {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		(&guarded{pid: cmd.Process.Pid, pidfd: fd}).Signal(syscall.SIGTERM)
		cmd.Wait()
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGTERM {
			t.Errorf("%s: it died of %v", name, s.Signal())
		}
	}
}
