// Package goruntime has Go's runtime do what suits etcdlocker. Package runtime/debug can do that as
// well, but needs the tables of package unicode, which are initialised late: its functions are
// linked by name.
package goruntime

import (
	"syscall"
	_ "unsafe" // for go:linkname

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// Abort has fatal errors of the runtime, and panics, end this process by SIGABRT from now on. They
// end it with exit code 2 otherwise, which has a meaning of etcdlocker's. All goroutines are shown
// on stderr, as with GOTRACEBACK=crash.
//
// The C library aborts by itself where it starts threads for Go and there are none to be had. Go's
// handler would first send SIGQUIT to all of its threads to have them shown, and wait for 10 s if
// that is caught.
func Abort() {
	setTraceback("crash")
	kernel.LeaveDefault(syscall.SIGABRT)
}

//go:linkname setTraceback runtime/debug.SetTraceback
func setTraceback(level string)
