package guard

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestLaunchWhileStopped: a SIGTSTP to the process group, which the guard is about to leave, does
// not stop its launch, and with it this process. Nor does it stop the guard, later.
func TestLaunchWhileStopped(t *testing.T) {
	if _, here := again(t, &syscall.SysProcAttr{Setpgid: true}); !here {
		return
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP)
	var done atomic.Bool
	defer done.Store(true)
	go func() {
		for !done.Load() {
			syscall.Kill(0, syscall.SIGTSTP)
		}
	}()
	for range 100 {
		l := Launch(os.Args)
		if l.err != nil {
			t.Fatal(l.err)
		}
		syscall.Kill(l.pid, syscall.SIGTSTP) // as if it had come in that moment
		etcdtest.Await(t, "the guard to have taken it", func(context.Context) error {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.pid))
			if strings.Contains(string(status), "\nState:\tT") {
				t.Fatal("the guard is stopped")
			}
			if err == nil && !strings.Contains(string(status), "\nShdPnd:\t0000000000000000\n") {
				err = errors.New("it has not")
			}
			return err
		})
		l.Close()
	}
}
