package etcdtest

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// selfCommand returns a command that executes this very binary, even if its file was replaced
// meanwhile.
func selfCommand() (*exec.Cmd, error) { return exec.Command("/proc/self/exe"), nil }

// startTied starts cmd so that it is killed when this process ends, however it ends, and even if
// cmd is stopped then.
func startTied(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	result := make(chan error)
	starter() <- func() { result <- cmd.Start() }
	return <-result
}

// starter runs functions on one thread that lasts as long as the process: the kernel sends a child
// its death signal when the thread that started it ends, and Go ends threads at will.
var starter = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// awaitStopped waits until every thread of a child that was sent SIGSTOP has stopped. It cannot
// take the child's exit status away from os/exec.
func awaitStopped(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
