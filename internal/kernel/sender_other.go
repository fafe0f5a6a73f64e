//go:build !linux || !(amd64 || arm64)

package kernel

import "syscall"

// LeaveDefault does nothing: Go's handler could not be put back.
func LeaveDefault(syscall.Signal) {}

// NoteSender does nothing: it is not known here who sends a signal.
func NoteSender(syscall.Signal) {}

// LastSender knows nothing.
func LastSender(syscall.Signal) (s Sender, known bool) { return s, false }

// CameAfter returns false: it is not known.
func CameAfter(sig, other syscall.Signal) bool { return false }
