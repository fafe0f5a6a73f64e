//go:build !linux

package serverdir

import "syscall"

// aside returns how to start a process that leaves a server behind: here orphans fall to init.
func aside() (*syscall.SysProcAttr, error) { return &syscall.SysProcAttr{Setpgid: true}, nil }
