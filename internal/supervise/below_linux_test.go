package supervise

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// adoptVariable has the test binary run a script, and adopt its orphans without reaping them.
const adoptVariable = "ETCDLOCK_TEST_ADOPT"

func adoptScript(script string) int {
	if err := adopt(); err != nil {
		return 1
	}
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		return 1
	}
	select {}
}

// TestKillBelow: who becomes an orphan while its parent ends is not missed.
func TestKillBelow(t *testing.T) {
	const script = `for loop in 1 2 3; do while :; do (sleep 1000 &); done & done; echo ready; wait`
	etcdtest.KeepBusy(t)
	for round := range 30 {
		mark := adoptVariable + "=" + script + "# " + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(round)
		top := exec.Command(os.Args[0])
		top.Env = append(os.Environ(), mark)
		stdout, err := top.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := top.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadString('\n')
		top.Process.Signal(syscall.SIGSTOP)
		KillBelow(top.Process.Pid, time.Now().Add(time.Minute))
		if err != nil || line != "ready\n" {
			t.Error(line, err)
		}
		for pid := range etcdtest.Processes(mark) {
			if pid != top.Process.Pid {
				t.Errorf("round %d: process %d is left", round, pid)
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		top.Process.Kill()
		top.Wait()
	}
}
