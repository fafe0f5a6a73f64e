package supervise

import (
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestEarlierChildren: they are not found among the descendants, and nor is what they start; that
// nothing but them is left is known as well, until they have ended.
func TestEarlierChildren(t *testing.T) {
	start := func() int {
		cmd := exec.Command("sh", "-c", "sleep 1000 & wait")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			KillBelow(cmd.Process.Pid, time.Now().Add(time.Minute))
			cmd.Process.Kill()
			cmd.Wait()
			forgetEarlier(cmd.Process.Pid)
		})
		return cmd.Process.Pid
	}
	finds := func(pid int) bool {
		return slices.ContainsFunc(Descendants(), func(p Process) bool { return p.PID == pid })
	}
	before := start()
	if onlyEarlier() || !finds(before) {
		t.Error("it is an earlier one before it is noted")
	}
	NoteEarlier()
	if !onlyEarlier() || finds(before) || len(Descendants()) != 0 {
		t.Errorf("found: %v", Descendants())
	}
	var reaping sync.Mutex
	if hasRoom(&reaping); !onlyEarlier() {
		t.Error("a child that has come and gone is left")
	}
	if after := start(); onlyEarlier() || !finds(after) {
		t.Errorf("found: %v", Descendants())
	}
	if forgetEarlier(before); !finds(before) {
		t.Error("what has its number is not found")
	}
}
