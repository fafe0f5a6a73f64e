package guard

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Checks are scripts that look after the command, run one after the other by a process of their own
// below the guard. The guard does not run them itself: it would stand still while a program is
// executed, which can hang. That process is the same program once more. It takes scripts from
// etcdlocker and says how they ended:
//
//	etcdlocker to it                              it to etcdlocker
//	check: process id of the command, the script  checked: how it ended, or why it did not run
//	       (and a descriptor for its output)
//	(end of file: no more)
//
// It is stopped and killed with the rest of what is below the guard, which ends it when the command
// has ended. What a script leaves running is killed before the next one.
type Checks struct {
	conn  *conn
	their int
	leave func()
}

// checkerName is what the process is called.
const checkerName = "etcdlocker-pulse"

const (
	check   kind = 'R'
	checked kind = 'D'
)

// NewChecks returns checks for a command that is not started yet.
func NewChecks() (*Checks, error) {
	ours, theirs, err := newChannel()
	if err != nil {
		return nil, os.NewSyscallError("a channel for checks", err)
	}
	syscall.CloseOnExec(theirs)
	return &Checks{conn: ours, their: theirs, leave: sync.OnceFunc(func() { syscall.Close(theirs) })}, nil
}

// Channel returns what is to be the channel of an Order with Checks.
func (c *Checks) Channel() int { return c.their }

// Begin says that the command has started.
func (c *Checks) Begin() { c.leave() }

// Run runs a script with its output in a descriptor, and waits for its end, or for Close.
func (c *Checks) Run(command int, script string, output int) supervise.Result {
	m := append(appendNumber([]byte{byte(check)}, uint64(command)), script...)
	err := c.conn.send(m, output)
	var answer []byte
	if err == nil {
		answer, _, err = c.conn.receive()
	}
	if err != nil {
		return supervise.Result{Err: errors.New("the process " + checkerName + " was killed")}
	}
	status, errno, err := parseNumbers(answer)
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	return supervise.Result{Status: syscall.WaitStatus(status), Err: err}
}

// Close ends them.
func (c *Checks) Close() {
	c.leave()
	c.conn.close()
}

// startChecker starts the process, before the command: if that takes too long, etcdlocker gives all
// of it up.
func (w *warden) startChecker(channel int) (err error) {
	defer syscall.Close(channel) // the command must not inherit it
	w.checker, err = w.fork(self, []string{checkerName}, guardEnvironment(w.env, channel), &syscall.SysProcAttr{Setpgid: true})
	return err
}

// endWithin bounds how long the end of the checks holds up the report that the command has ended.
// It takes milliseconds where a processor is free. What is left then counts as left by the command.
const endWithin = 5 * time.Second

// endChecker ends the process and all below it.
func (w *warden) endChecker() {
	if w.checker <= 0 {
		return
	}
	until := time.Now().Add(endWithin)
	// Children are ours to wait for, so the number is its own. Stopped, it starts nothing more.
	syscall.Kill(w.checker, syscall.SIGSTOP)
	supervise.KillBelow(w.checker, until)
	syscall.Kill(w.checker, syscall.SIGKILL)
	for time.Now().Before(until) && !w.checkerEnded() {
		time.Sleep(time.Millisecond)
	}
}

// checkerEnded reports whether the process has ended, after it was killed.
func (w *warden) checkerEnded() bool {
	w.reaping.Lock()
	defer w.reaping.Unlock()
	pid, err := syscall.Wait4(w.checker, nil, syscall.WNOHANG, nil)
	return pid != 0 && err != syscall.EINTR
}

// runChecks is the process. It belongs to the main thread, as a script's death signal goes by the
// thread that started it.
func runChecks() int {
	socket, ok := enter(checkerName)
	if !ok {
		return 1
	}
	env := commandEnvironment(os.Environ())
	buf := make([]byte, maxMessage+16)
	for {
		n, output, err := receiveFrom(socket, buf, syscall.MSG_CMSG_CLOEXEC)
		if err != nil {
			return 0
		}
		if n <= 9 || kind(buf[0]) != check {
			return 1
		}
		status, err := runCheck(string(buf[9:n]), environment(env, []string{"ETCD_LOCK_PID=" + strconv.FormatUint(number(buf[1:9]), 10)}), output)
		sendTo(socket, numbers(checked, uint64(status), uint64(errnoOf(err))), 0)
	}
}

// runCheck runs one script to its end, and ends what it leaves.
func runCheck(script string, env []string, output int) (status syscall.WaitStatus, err error) {
	defer syscall.Close(output)
	null, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer syscall.Close(null)
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{uintptr(null), uintptr(output), uintptr(output)},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 0, err
	}
	for ended := 0; ended != pid; {
		var one syscall.WaitStatus
		if ended, err = syscall.Wait4(-1, &one, 0, nil); err != nil && err != syscall.EINTR {
			return 0, err
		}
		status = one
	}
	for {
		ended, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case ended > 0 || err == syscall.EINTR:
			continue
		case err != nil: // nothing is left
			return status, nil
		}
		for _, p := range supervise.Descendants() {
			p.Signal(syscall.SIGKILL)
		}
		time.Sleep(supervise.KillEvery)
	}
}
