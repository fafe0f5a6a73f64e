package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestIgnorable: a signal that is passed on can be ignored instead, and few others.
func TestIgnorable(t *testing.T) {
	for name, want := range map[string]unix.Signal{"TERM": unix.SIGTERM, "sigusr1": unix.SIGUSR1, "SIGPIPE": unix.SIGPIPE, "15": unix.SIGTERM} {
		if sig, ok := ignorable(name); sig != want || !ok {
			t.Errorf("%s: %v, %v", name, sig, ok)
		}
	}
	for _, name := range []string{"", "SIG", "KILL", "STOP", "CHLD", "SEGV", "CONT", "0", "-15", "65", "no such"} {
		if sig, ok := ignorable(name); ok {
			t.Errorf("%q is %v", name, sig)
		}
	}
}

func TestSignalName(t *testing.T) {
	for sig, want := range map[unix.Signal]string{unix.SIGTERM: "SIGTERM", 40: "signal 40"} {
		if got := signalName(sig); got != want {
			t.Errorf("%d is called %q", int(sig), got)
		}
	}
}
