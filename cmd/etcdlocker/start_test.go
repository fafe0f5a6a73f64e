package main

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// startedCommand notes that it was started.
type startedCommand struct {
	guard.Command
	started bool
}

func (c *startedCommand) Start(context.Context, guard.Order) error {
	c.started = true
	return nil
}

// TestToldToStopBeforeTheStart: what tells us to stop while the start is prepared prevents it.
func TestToldToStopBeforeTheStart(t *testing.T) {
	for _, tt := range []struct {
		sig    os.Signal
		starts bool
	}{{unix.SIGINT, false}, {unix.SIGTERM, false}, {unix.SIGUSR1, true}} {
		c := &startedCommand{}
		h := newTestHolder(t, c)
		h.signals <- unix.SIGWINCH
		h.signals <- tt.sig
		_, err := h.start(&pulsing{})
		if told, ok := err.(stopped); c.started != tt.starts || ok == tt.starts || ok && told != stopped(tt.sig.(unix.Signal)) {
			t.Errorf("%v: started %v, %v", tt.sig, c.started, err)
		}
	}
}

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
