package supervise

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// roomVariable has the test binary look for room while its process group is told to stop.
const roomVariable = "ETCDLOCK_TEST_ROOM"

func findRoom() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP)
	var done atomic.Bool
	defer done.Store(true)
	go func() {
		for !done.Load() {
			syscall.Kill(0, syscall.SIGTSTP)
		}
	}()
	var reaping sync.Mutex
	for range 300 {
		if !hasRoom(&reaping) {
			return 1
		}
	}
	return 0
}

// TestRoomWhileStopped: a SIGTSTP to the process group, which a program may send that handles it,
// does not stop the look for room, and with it this process.
func TestRoomWhileStopped(t *testing.T) {
	cmd := exec.CommandContext(etcdtest.Context(t), os.Args[0])
	cmd.Env = append(os.Environ(), roomVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}
