//go:build unix && !linux

package supervise

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// adopt does nothing: orphans fall to init here, and what a command leaves behind is not seen.
func adopt() error { return nil }

func release() {}

// attributes puts the command into a process group of its own, so that its children can be reached
// with it, unless that would take the terminal away from it.
func attributes() *syscall.SysProcAttr {
	if inForeground() {
		return nil
	}
	return &syscall.SysProcAttr{Setpgid: true}
}

// A killer is not needed: each call of Kill sends a signal.
type killer struct{}

func newKiller(*sync.Mutex) killer { return killer{} }

// End does nothing.
func (killer) End() {}

// Kill kills what can be reached. Whether something has died is not known.
func (t *Tree) Kill() (progress bool) {
	t.signalAll(syscall.SIGKILL)
	return false
}

func inForeground() bool {
	pgrp, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && pgrp == unix.Getpgrp()
}

func (t *Tree) signalCommand(sig syscall.Signal) { syscall.Kill(t.pid, sig) }

func (t *Tree) signalAll(sig syscall.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pgid, err := unix.Getpgid(t.pid); err == nil && pgid == t.pid {
		syscall.Kill(-t.pid, sig)
		return
	}
	if !t.reaped {
		t.signalCommand(sig)
	}
}

// IsAbove returns false: here no guard can have got the signal.
func IsAbove(int) bool { return false }

// IsBelow returns false: here a command gets what its terminal sends, and this process as well.
func IsBelow(int) bool { return false }

// NoteEarlier does nothing: no child is looked for here.
func NoteEarlier() {}

func forgetEarlier(int) {}

func onlyEarlier() bool { return false }

// A Process is one that was found below the command. None is found on this system.
type Process struct {
	PID  int
	Name string
}

// Alive reports whether the process goes on, as far as is known.
func (p Process) Alive() bool { return true }

// Freeze does nothing: what cannot be found cannot be stopped. The end of validity kills it.
func Freeze(func() []Process) []Process { return nil }

// Thaw does nothing.
func Thaw([]Process) {}

// Descendants returns nothing: there is no way to find them on this system.
func Descendants() []Process { return nil }

// OnlyServers returns false: what is there is not known.
func OnlyServers([]Process) bool { return false }
