//go:build unix && !linux

package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// passedLate are signals that go on to the command as well, but are hardly ever sent.
var passedLate = []syscall.Signal{unix.SIGABRT}
