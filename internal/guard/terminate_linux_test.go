package guard

import (
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// TestTerminateEnds: once the guard kills everything, etcdlocker signals nothing any more, in the
// middle of thousands either.
func TestTerminateEnds(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	all := slices.DeleteFunc(supervise.Descendants(), func(p supervise.Process) bool { return p.PID != cmd.Process.Pid })
	if len(all) != 1 {
		t.Fatalf("seen: %v", all)
	}
	var g guarded
	if !g.over() { // validity has ended
		t.Error("it is not over without validity")
	}
	g.signalEach(all, syscall.SIGTERM)
	g.validUntil.Store(int64(boottime.Now().Add(time.Hour)))
	if g.ending.Store(true); !g.over() {
		t.Error("it is not over when the guard has said so")
	}
	g.signalEach(all, syscall.SIGTERM)
	g.ending.Store(false)
	g.signalEach(all, syscall.SIGKILL)
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("it died of %v", s.Signal())
	}
}
