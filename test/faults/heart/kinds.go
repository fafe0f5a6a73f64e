//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tree is what a command starts.
type tree struct{ dir, name string }

// over reports whether the trial is, or the part that the command has in it: then everything is to
// end.
func (t tree) over() bool {
	is := func(file string) bool {
		_, err := os.Stat(filepath.Join(t.dir, file))
		return !errors.Is(err, os.ErrNotExist)
	}
	return is("finish") || is("finish."+t.name)
}

// resist does what makes the command hard to end. It ignores TERM already.
func (t tree) resist(kind string) error {
	if part, ok := strings.CutPrefix(kind, "has a child that "); ok {
		return t.start(leaf + " " + part)
	}
	switch kind {
	case "has no death signal": // it may be setgid, and have none anyway
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
			return err
		}
		return t.start(leaf)
	case "forks and exits without pause":
		return t.crowd("chain", 1)
	case "is a fork bomb":
		return t.crowd("bomb", 400)
	case "has 200 processes":
		return t.crowd("many", 200)
	case "has 1,000 processes":
		return t.crowd("many", 1000)
	case "has 2,500 processes":
		return t.crowd("many", 2500)
	case "never sleeps, at a real-time priority":
		return t.crowd("fifo", 10)
	case "ignores TERM":
		return nil
	case "has a child in a session of its own":
		return t.start(leaf)
	case "double forks":
		return t.start(middle)
	case "forks while it is killed":
		return exec.Command("sh", "-c", `trap "" TERM; until [ -e "$0" ]; do (setsid sleep 300 &); sleep 0.03; done`, filepath.Join(t.dir, "finish")).Start()
	case "closes everything":
		for fd := range 3 {
			syscall.Close(fd)
		}
		return t.start(leaf)
	case "is stopped":
		// Where its parent has died, the kernel lets what is stopped go on, and hangs up.
		signal.Ignore(syscall.SIGHUP)
		child, err := t.child(leaf, "heart")
		if err == nil {
			time.AfterFunc(100*time.Millisecond, func() {
				if !t.over() {
					child.Signal(syscall.SIGSTOP)
					syscall.Kill(os.Getpid(), syscall.SIGSTOP)
				}
			})
		}
		return err
	case "has a child with another name":
		_, err := t.child(leaf, "sshd")
		return err
	}
	return fmt.Errorf("no command is of the kind %q", kind)
}

// crowd starts what package crowd is about, in this session.
func (t tree) crowd(kind string, n int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(filepath.Dir(self), "crowd"), kind, strconv.Itoa(n), t.dir, t.name)
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	go cmd.Wait()
	return err
}

func (t tree) start(kind string) error {
	_, err := t.child(kind, "heart")
	return err
}

// child starts a process in a session of its own.
func (t tree) child(kind, as string) (*os.Process, error) {
	cmd := exec.Command("/proc/self/exe", t.dir, t.name, kind)
	cmd.Args[0] = as
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err := cmd.Start()
	go cmd.Wait()
	return cmd.Process, err
}
