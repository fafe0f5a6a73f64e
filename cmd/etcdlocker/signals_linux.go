package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// passedLate are signals that go on to the command as well, but are hardly ever sent. Go keeps 34,
// the first real-time signal, to itself.
var passedLate = func() []syscall.Signal {
	const firstRealTime, lastRealTime = 35, 64
	late := []syscall.Signal{unix.SIGABRT, unix.SIGPWR}
	for sig := firstRealTime; sig <= lastRealTime; sig++ {
		late = append(late, syscall.Signal(sig))
	}
	return late
}()
