package main

import (
	"os"
	"os/signal"
	"testing"
	"time"

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

// TestSettle: a signal that came before is received, also one that stops a process. Ctrl-Z has
// stopped the command, and a shell would wait for etcdlocker.
func TestSettle(t *testing.T) {
	c := make(chan os.Signal, signalsKept)
	<-catchSignals(c)()
	defer signal.Stop(c)
	catch(c, unix.SIGTSTP)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGTSTP} {
		for range 100 {
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			settle()
			select {
			case got := <-c:
				if got != sig {
					t.Fatalf("%v came, want %s", got, signalName(sig))
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s did not come", signalName(sig))
			}
		}
	}
}
