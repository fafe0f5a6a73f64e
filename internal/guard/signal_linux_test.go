package guard

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
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
		cmd := exec.CommandContext(etcdtest.Context(t), "sleep", "1000")
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

// TestTyped: what is typed goes to a process group that the command leads. SIGTSTP stops it, and
// SIGCONT lets it go on, unless the guard may have stopped it to kill it.
func TestTyped(t *testing.T) {
	cmd := exec.CommandContext(etcdtest.Context(t), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	wait := func(options int) (status syscall.WaitStatus) {
		syscall.Wait4(cmd.Process.Pid, &status, options, nil)
		return status
	}
	g := &guarded{pid: cmd.Process.Pid}
	g.Typed(syscall.SIGTSTP)
	if s := wait(syscall.WUNTRACED); !s.Stopped() {
		t.Fatalf("it is not stopped: %v", s)
	}
	g.Typed(syscall.SIGTERM)
	g.Typed(syscall.SIGCONT) // validity is over
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil || !strings.Contains(string(stat), ") T ") {
		t.Fatalf("it went on: %s, %v", stat, err)
	}
	g.extended(boottime.Now().Add(time.Hour))
	g.Typed(syscall.SIGCONT)
	if s := wait(0); s.Signal() != syscall.SIGTERM {
		t.Errorf("it died of %v", s)
	}
}
