//go:build linux

// Package stubborn plays the parts in a command's tree that no shell can play: processes that are
// hard to find or to end.
package stubborn

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Parts are those that Play knows.
var Parts = map[string]func(ready func(error)){
	"is traced":                traced,
	"changes its title":        titled,
	"outlives its main thread": headless,
}

// A part may be about the main thread, and the scheduler moves a main goroutine that is not locked.
func init() { runtime.LockOSThread() }

// Play plays a part for an hour at most, and calls ready when it has begun. It is called by the
// main goroutine.
func Play(part string, ready func(error)) {
	play, ok := Parts[part]
	if !ok {
		ready(fmt.Errorf("no part is called %q", part))
		return
	}
	play(ready)
	time.Sleep(time.Hour)
}

// traced has a child that is stopped by its tracer from its first instruction on.
func traced(ready func(error)) {
	_, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Ptrace: true}})
	ready(err)
}

// titled is a zombie, and a child of init, to whoever reads /proc/PID/stat from the left.
func titled(ready func(error)) {
	err := os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", syscall.Gettid()), []byte("x) Z 1 (y"), 0)
	signal.Ignore(syscall.SIGTERM)
	ready(err)
}

// headless goes on when its main thread has ended, which makes it look like a zombie.
func headless(ready func(error)) {
	if tid := syscall.Gettid(); tid != os.Getpid() {
		ready(fmt.Errorf("%d is not the main thread", tid))
		return
	}
	signal.Ignore(syscall.SIGTERM)
	go func() {
		for {
			stat, err := os.ReadFile("/proc/self/stat")
			if err != nil || strings.Contains(string(stat), ") Z ") {
				ready(err)
				time.Sleep(time.Hour)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // this thread alone
}
