//go:build unix

package supervise

import (
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// A Command is what to run. Its working directory is ours.
type Command struct {
	Path       string   // of the program
	Args       []string // with the program's name as the first
	Env        []string
	Files      []uintptr            // nil: our standard files
	Attributes *syscall.SysProcAttr // nil: those of a command that shares our process group
}

// A Tree is a running command with all its descendants, children of this process. It acts for a
// Life.
type Tree struct {
	exited  <-chan Exit
	empty   <-chan struct{}
	stopped Latest

	pid    int
	mu     sync.Mutex // held while children are waited for
	reaped bool       // the command's pid may belong to somebody else by now
	frozen []Process
	killer killer // has not begun
	stop   chan struct{}
	done   chan struct{}
	grace  time.Duration // from the news that a child has ended until it is waited for
}

// Start runs a command. From then on every child of this process is reaped here, and nothing else
// in the process may wait for a child of its own.
func Start(c Command) (*Tree, error) {
	if err := adopt(); err != nil {
		return nil, err
	}
	if c.Files == nil {
		c.Files = []uintptr{0, 1, 2}
	}
	if c.Attributes == nil {
		c.Attributes = attributes()
	}
	pid, err := syscall.ForkExec(c.Path, c.Args, &syscall.ProcAttr{Env: c.Env, Files: c.Files, Sys: c.Attributes})
	if err != nil {
		return nil, err
	}
	return newTree(pid, 0), nil
}

// reapAfter is how long a process of several threads is given to go. The kernel tells of its end
// before the last thread is out of /proc. Who waits for it in that moment does so on the processor,
// without sleeping, which was seen to take more than 10 ms where that thread needed this very
// processor: the next holder's, or etcd's.
const reapAfter = 500 * time.Microsecond

// Watch does so with a child that this process has started already.
func Watch(pid int) (*Tree, error) {
	if err := adopt(); err != nil {
		return nil, err
	}
	return newTree(pid, reapAfter), nil
}

func newTree(pid int, grace time.Duration) *Tree {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD) // what has ended before is found all the same
	exited, empty := make(chan Exit, 1), make(chan struct{})
	t := &Tree{exited: exited, empty: empty, stopped: make(Latest, 1), pid: pid, stop: make(chan struct{}), done: make(chan struct{}), grace: grace}
	t.killer = newKiller(&t.mu)
	go t.reap(children, exited, empty)
	return t
}

// Close stops reaping. Processes that are left are not touched, and belong to init.
func (t *Tree) Close() {
	t.killer.End()
	close(t.stop)
	<-t.done
	release()
}

// Reaping is held while children of this process are waited for.
func (t *Tree) Reaping() *sync.Mutex { return &t.mu }

// PID returns the process id of the command.
func (t *Tree) PID() int { return t.pid }

// Exited receives once, when the command has ended.
func (t *Tree) Exited() <-chan Exit { return t.exited }

// Empty is closed when no child is left to this process, but for earlier ones.
func (t *Tree) Empty() <-chan struct{} { return t.empty }

// Stopped receives whether the command is stopped, when that has changed.
func (t *Tree) Stopped() <-chan bool { return t.stopped }

// reap is the one loop that waits for children: the command, and the orphans that fall to this
// process.
func (t *Tree) reap(children chan os.Signal, exited chan<- Exit, empty chan<- struct{}) {
	defer close(t.done)
	defer signal.Stop(children)
	for {
		status, ended, left := t.collect()
		if ended {
			exited <- Exit{Status: status, OrphansLeft: left}
		}
		if !left {
			close(empty)
			return
		}
		select {
		case <-children:
			time.Sleep(t.grace)
		case <-t.stop:
			return
		}
	}
}

// collect waits for all children that have ended, and reports whether the command is among them and
// whether there are others, but for earlier ones.
func (t *Tree) collect() (status syscall.WaitStatus, ended, left bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG|syscall.WUNTRACED|syscall.WCONTINUED, nil)
		if pid > 0 && !ws.Stopped() && !ws.Continued() {
			forgetEarlier(pid)
		}
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return status, ended, false
		case err != nil:
			return status, ended, true
		case pid == 0:
			return status, ended, !onlyEarlier()
		case ws.Stopped(), ws.Continued():
			if pid == t.pid {
				t.stopped.Put(ws.Stopped())
			}
		case pid == t.pid && !t.reaped:
			t.reaped, ended, status = true, true, ws
		}
	}
}

// Signal sends a signal to the command itself.
func (t *Tree) Signal(sig syscall.Signal) {
	// A pid cannot be reused before it was waited for, and that does not happen while the lock is
	// held.
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reaped {
		t.signalCommand(sig)
	}
}

// Typed sends a signal to the process group of the command, if it leads one of its own.
func (t *Tree) Typed(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.reaped {
		Typed(t.pid, sig)
	}
}

// Typed sends a signal, as a terminal would, to the process group that a process leads, unless that
// is the group of this process, which has got it already.
//
// SIGTSTP becomes SIGSTOP. The kernel ignores SIGTSTP in a group without a parent in another group
// of the same session, as no shell could continue it. The guard, the parent of a command, is in
// another session.
func Typed(pid int, sig syscall.Signal) {
	group, err := syscall.Getpgid(pid)
	if err != nil || group != pid || group == syscall.Getpgrp() {
		return
	}
	if sig == syscall.SIGTSTP {
		sig = syscall.SIGSTOP
	}
	syscall.Kill(-group, sig)
}

// Terminate asks everything to end, and wakes up what is stopped so that it can.
func (t *Tree) Terminate() {
	t.signalAll(syscall.SIGTERM)
	t.signalAll(syscall.SIGCONT)
}

// Freeze stops everything that can be found. Thaw lets it go on.
func (t *Tree) Freeze() { t.frozen = Freeze(Descendants) }

// Thaw lets those go on that Freeze has stopped.
func (t *Tree) Thaw() { Thaw(t.frozen) }

// OnlyServers reports whether nothing but embedded etcds is left.
func (t *Tree) OnlyServers() bool { return OnlyServers(Descendants()) }
