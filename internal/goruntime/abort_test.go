//go:build unix

package goruntime

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const roleVariable = "ETCDLOCK_TEST_ABORT"

// ways to die, and what is said then.
var ways = map[string]struct {
	die  func()
	says string
}{
	"panic": {func() { panic("at the disco") }, "at the disco"},
	"fatal": {func() { new(sync.Mutex).Unlock() }, "unlock of unlocked mutex"},
	"abort": {func() { syscall.Kill(os.Getpid(), syscall.SIGABRT); select {} }, ""},
}

func TestMain(m *testing.M) {
	if way, ok := ways[os.Getenv(roleVariable)]; ok {
		syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
		Abort()
		signal.Notify(make(chan os.Signal, 1), syscall.SIGQUIT)
		way.die()
	}
	os.Exit(m.Run())
}

// TestAbort: none of them ends with an exit code, and none is held up by a SIGQUIT that is caught.
func TestAbort(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), roleVariable+"="+name)
			begun := time.Now()
			out, err := cmd.CombinedOutput()
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGABRT || !strings.Contains(string(out), way.says) {
				t.Errorf("%v: %.300s", err, out)
			}
			if took := time.Since(begun); took > 9*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}
