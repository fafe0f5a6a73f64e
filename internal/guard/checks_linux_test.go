package guard

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestEndChecker: what runs checks ends with all below it, also what has lost its main thread.
func TestEndChecker(t *testing.T) {
	if err := kernel.AdoptOrphans(true); err != nil {
		t.Fatal(err)
	}
	defer kernel.AdoptOrphans(false)
	mark := "ETCDLOCK_TEST_MARK=" + strconv.Itoa(os.Getpid()) + t.Name()
	cmd := exec.Command("sh", "-c", `"$0" & wait`, os.Args[0])
	cmd.Env = append(os.Environ(), mark, roleVariable+"=outlives its main thread")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready <nil>\n" {
		t.Fatal(line, err)
	}
	w := &warden{checker: cmd.Process.Pid}
	w.endChecker()
	cmd.Wait() // it is waited for already
	for pid := range etcdtest.Processes(mark) {
		t.Errorf("process %d is left", pid)
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
			p.Wait()
		}
	}
}
