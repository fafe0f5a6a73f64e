package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalName(t *testing.T) {
	for sig, want := range map[unix.Signal]string{unix.SIGTERM: "SIGTERM", 40: "signal 40"} {
		if got := signalName(sig); got != want {
			t.Errorf("%d is called %q", int(sig), got)
		}
	}
}
