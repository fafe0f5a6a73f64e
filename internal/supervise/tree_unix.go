//go:build unix

package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Command is what to run. Its standard files, working directory and process group are ours.
type Command struct {
	Path string   // of the program
	Args []string // with the program's name as the first
	Env  []string
}

// An Exit says that the command has ended.
type Exit struct {
	Status syscall.WaitStatus
	Left   bool // something that it started is still there
}

// A Tree is a running command with all its descendants. It acts for a Life.
type Tree struct {
	Exited <-chan Exit     // receives once
	Empty  <-chan struct{} // closed when no child is left to this process

	pid    int
	mu     sync.Mutex
	reaped bool // the command's pid may belong to somebody else by now
	stop   chan struct{}
	done   chan struct{}
}

// Start runs a command. From then on every child of this process is reaped here, and nothing else in the process
// may wait for a child of its own.
func Start(c Command) (*Tree, error) {
	if err := adopt(); err != nil {
		return nil, fmt.Errorf("becoming the parent of orphans: %w", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	pid, err := syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{
		Env:   c.Env,
		Files: []uintptr{0, 1, 2},
		Sys:   attributes(),
	})
	if err != nil {
		signal.Stop(children)
		return nil, err
	}
	exited, empty := make(chan Exit, 1), make(chan struct{})
	t := &Tree{Exited: exited, Empty: empty, pid: pid, stop: make(chan struct{}), done: make(chan struct{})}
	go t.reap(children, exited, empty)
	return t, nil
}

// Close stops reaping. Processes that are left are not touched.
func (t *Tree) Close() {
	close(t.stop)
	<-t.done
}

// PID returns the process id of the command.
func (t *Tree) PID() int { return t.pid }

// reap is the one loop that waits for children: the command, and the orphans that fall to this process.
func (t *Tree) reap(children chan os.Signal, exited chan<- Exit, empty chan<- struct{}) {
	defer close(t.done)
	defer signal.Stop(children)
	for {
		status, ended, left := t.collect()
		if ended {
			exited <- Exit{status, left}
		}
		if !left {
			close(empty)
			return
		}
		select {
		case <-children:
		case <-t.stop:
			return
		}
	}
}

// collect waits for all children that have ended, and reports whether the command is among them and whether there
// are others.
func (t *Tree) collect() (status syscall.WaitStatus, ended, left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // ECHILD
			return status, ended, false
		case pid == 0:
			return status, ended, true
		case pid == t.pid && !t.reaped:
			t.reaped, ended, status = true, true, ws
		}
	}
}

// Signal sends a signal to the command itself.
func (t *Tree) Signal(sig syscall.Signal) {
	// A pid cannot be reused before it was waited for, and that does not happen while the lock is held.
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reaped {
		t.signalCommand(sig)
	}
}

// Terminate asks everything to end, and wakes up what is stopped so that it can.
func (t *Tree) Terminate() {
	t.signalAll(syscall.SIGTERM)
	t.signalAll(syscall.SIGCONT)
}

// Kill kills everything that can be found now. What a process forks meanwhile is found the next time.
func (t *Tree) Kill() { t.signalAll(syscall.SIGKILL) }

// Drive lets a Life decide and a Tree act until it is over. Signals are those sent to this process; shared says of
// one whether the command has got it already.
func Drive(l *Life, t *Tree, lost, expired <-chan struct{}, signals <-chan os.Signal, shared func(syscall.Signal) bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	exited, empty := t.Exited, t.Empty
	for l.State() != Over {
		if at := l.Wake(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case sig := <-signals:
			if sig, ok := sig.(syscall.Signal); ok {
				l.Signaled(time.Now(), sig, !shared(sig))
			}
		case <-lost:
			lost = nil
			l.Lost(time.Now())
		case <-expired:
			expired = nil
			l.Expired(time.Now())
		case e := <-exited:
			exited = nil
			l.Exited(time.Now(), e.Status, e.Left)
		case <-empty:
			empty = nil
			// The end of the command came first, though select may not have picked it.
			select {
			case e := <-exited:
				l.Exited(time.Now(), e.Status, e.Left)
			default:
			}
			l.Empty()
		case <-timer.C:
			l.Tick(time.Now())
		}
	}
}
