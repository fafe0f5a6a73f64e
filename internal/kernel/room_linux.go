package kernel

import "syscall"

// HasRoom reports whether this process may have some more processes or threads now. It starts as
// many children as that, which end at once, and send no signal when they do. Whoever waits for
// children with __WCLONE or __WALL must not do so meanwhile.
func HasRoom(some int) bool {
	started := make([]int, 0, some)
	for range some {
		pid, err := startEnding()
		if err != nil {
			break
		}
		started = append(started, pid)
	}
	for _, pid := range started {
		end(pid)
	}
	return len(started) == some
}

// startEnding starts a child that ends at once. It has a copy of everything but the other threads,
// and must not need them.
//
//go:norace
func startEnding() (pid int, err error) {
	r, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	for e == 0 && r == 0 {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return int(r), errnoOf(e)
}

// end ends a child that startEnding has started, and waits for it. Go does not learn of the wait:
// it would start a thread to have others run meanwhile, for which there may be no room before the
// child is gone.
func end(pid int) {
	const exitsSilently = syscall.WCLONE // how children are waited for that send no signal

	// Somebody may have stopped it.
	syscall.RawSyscall(syscall.SYS_KILL, uintptr(pid), uintptr(syscall.SIGKILL), 0)
	for {
		_, _, err := syscall.RawSyscall6(syscall.SYS_WAIT4, uintptr(pid), 0, exitsSilently, 0, 0, 0)
		if err != syscall.EINTR {
			return
		}
	}
}
