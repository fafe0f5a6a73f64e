package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// faults are the signals by which the kernel tells a process of a fault.
var faults = []os.Signal{unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT}

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

// notStopped does something without being stopped for writing to the terminal from the background
// (stty tostop): the lock would not be renewed.
func notStopped(do func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ttou, before unix.Sigset_t
	ttou.Val[0] = 1 << (unix.SIGTTOU - 1)
	unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &before)
	do()
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}
