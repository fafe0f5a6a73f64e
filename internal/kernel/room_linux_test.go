package kernel_test

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestHasRoom: there is room for as many processes as the limit leaves, of which nothing stays, and
// of whose end no signal tells.
func TestHasRoom(t *testing.T) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for range 50 {
		if !kernel.HasRoom(3) {
			t.Fatal("there is no room for 3")
		}
	}
	select {
	case <-ended:
		t.Error("a signal tells of the end of one")
	default:
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WALL|syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("left is %d, %v", pid, err)
	}
}

func BenchmarkHasRoom(b *testing.B) {
	for b.Loop() {
		kernel.HasRoom(2)
	}
}
