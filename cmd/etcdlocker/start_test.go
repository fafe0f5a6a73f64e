package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestToldToStopDoesNotWait: signals come all the time, and no place is left for any of them.
func TestToldToStopDoesNotWait(t *testing.T) {
	h := &holder{locker: &locker{signals: make(chan os.Signal, 64)}}
	for range cap(h.signals) {
		h.signals <- unix.SIGUSR1
	}
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		for {
			select {
			case h.signals <- unix.SIGUSR1:
			case <-quit:
				return
			}
		}
	}()
	done := make(chan struct{})
	go func() {
		for range 10000 {
			h.toldToStop()
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}
