package guard

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestLaunchWhileStopped: a SIGTSTP to the process group, which the guard is about to leave, does
// not stop its launch, and with it this process.
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
		l.Close()
	}
}
