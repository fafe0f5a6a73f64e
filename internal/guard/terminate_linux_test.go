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

// TestTerminateEnds: once the guard kills everything, etcdlocker signals nothing any more, in the middle
// of thousands either.
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
	for name, set := range map[string]func(){
		"validity has ended": func() {},
		"it has said so": func() {
			g.validUntil.Store(int64(boottime.Now().Add(time.Hour)))
			g.ending.Store(true)
		},
	} {
		if set(); !g.over() {
			t.Errorf("%s: it is not over", name)
		}
		g.signalEach(all, syscall.SIGTERM)
	}
	g.ending.Store(false)
	g.validUntil.Store(int64(boottime.Now().Add(time.Hour)))
	g.signalEach(all, syscall.SIGHUP)
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGHUP {
		t.Errorf("it died of %v", s.Signal())
	}
}
