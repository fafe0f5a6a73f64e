//go:build linux

// Command launch executes a program as a trial wants it to begin: at the ordinary priority, which
// the suite itself is above, or at a real-time one.
//
//	launch [-cpu N] [-fifo PRIORITY] [-sigpending N] PROGRAM [ARGUMENT...]
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Priorities are a thread's, and the main thread's are kept when it executes a program.
func init() { runtime.LockOSThread() }

func main() {
	cpu := flag.Int("cpu", -1, "run on this `processor` alone")
	fifo := flag.Uint("fifo", 0, "run under SCHED_FIFO at this `priority`")
	pending := flag.Int("sigpending", -1, "allow `N` queued signals and timers, RLIMIT_SIGPENDING")
	flag.Parse()
	if err := launch(*cpu, uint32(*fifo), *pending, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "launch:", err)
		os.Exit(99)
	}
}

func launch(cpu int, fifo uint32, pending int, words []string) error {
	// Whoever runs the tests below the ordinary priority may not be allowed to raise theirs.
	const ordinary = 20 // the kernel's 20 - nice
	if has, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil || has > ordinary {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 0); err != nil {
			return fmt.Errorf("setting the priority: %w", err)
		}
	}
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("choosing the processor %d: %w", cpu, err)
		}
	}
	if fifo > 0 {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: fifo}
		if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
			return fmt.Errorf("setting a real-time priority: %w", err)
		}
	}
	if pending >= 0 {
		limit := unix.Rlimit{Cur: uint64(pending), Max: uint64(pending)}
		if err := unix.Setrlimit(unix.RLIMIT_SIGPENDING, &limit); err != nil {
			return fmt.Errorf("setting RLIMIT_SIGPENDING: %w", err)
		}
	}
	return syscall.Exec(words[0], words, os.Environ())
}
