//go:build unix && !linux

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// faults are the signals by which the kernel tells a process of a fault.
var faults = []os.Signal{unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS}

// passedLate are signals that go on to the command as well, but are hardly ever sent.
var passedLate = []syscall.Signal{unix.SIGABRT}

// notStopped does something. It may be stopped for writing to the terminal from the background.
func notStopped(do func()) { do() }
