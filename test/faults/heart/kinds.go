//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A tree is what a command starts.
type tree struct{ dir, name string }

// over reports whether the trial is: then everything is to end.
func (t tree) over() bool {
	_, err := os.Stat(filepath.Join(t.dir, "finish"))
	return !errors.Is(err, os.ErrNotExist)
}

// resist does what makes the command hard to end. It ignores TERM already.
func (t tree) resist(kind string) error {
	if part, ok := strings.CutPrefix(kind, "has a child that "); ok {
		return t.start(leaf + " " + part)
	}
	switch kind {
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
