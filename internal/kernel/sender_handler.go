//go:build linux && (amd64 || arm64)

package kernel

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// signals is how many there are on Linux, and 0, which is not one.
const signals = 65

// The handler noteSender, which is in assembly, notes who sends a signal, and in which order they
// come, and goes on to the handler that was there before, Go's. It runs on whatever stack and
// thread the signal came to, and so uses nothing but registers that a handler may change.
var (
	// sendersNoted is, by signal, what the last one came with: its si_code, and its si_pid above.
	sendersNoted [signals]uint64

	// orderNoted is, by signal, which one of all the last one was, counted from 1, and for 0 how
	// many have come.
	orderNoted [signals]uint64

	// handlersBefore is, by signal, the address of the handler that was there before.
	handlersBefore [signals]uintptr

	// noteSenderAddress is that of the handler. Its value is in assembly.
	noteSenderAddress uintptr

	// setAside is, by signal, Go's action that LeaveDefault has taken away.
	setAside [signals]sigaction
)

const defaultAction, ignore = 0, 1

// A sigaction is the kernel's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// LeaveDefault gives a signal the effect that it has without Go's runtime, until NoteSender is
// called for it. It must not have been caught or ignored.
func LeaveDefault(sig syscall.Signal) {
	if setAction(sig, nil, &setAside[sig]) == nil {
		setAction(sig, &sigaction{}, nil)
	}
}

// NoteSender has LastSender and CameAfter tell of a signal, which must have been caught by package
// os/signal before. It must not be called twice at once for one signal.
func NoteSender(sig syscall.Signal) {
	var action sigaction
	if setAction(sig, nil, &action) != nil {
		return
	}
	if action.handler == defaultAction {
		action = setAside[sig]
	}
	if action.handler <= ignore || action.handler == noteSenderAddress {
		return
	}
	atomic.StoreUintptr(&handlersBefore[sig], action.handler)
	action.handler = noteSenderAddress
	if setAction(sig, &action, nil) != nil {
		atomic.StoreUintptr(&handlersBefore[sig], defaultAction)
	}
}

func setAction(sig syscall.Signal, action, before *sigaction) error {
	const sizeOfMask = 8
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(action)), uintptr(unsafe.Pointer(before)), sizeOfMask, 0, 0)
	return errnoOf(e)
}

// LastSender returns who has sent a signal that came, and whether that is known. If two come at
// once it may be the other one's sender.
func LastSender(sig syscall.Signal) (s Sender, known bool) {
	if atomic.LoadUintptr(&handlersBefore[sig]) == 0 {
		return s, false
	}
	// As in siginfo.h: codes above 0 are the kernel's; the others that come with a process id.
	const byKill, byQueue, byThreadKill = 0, -1, -6
	noted := atomic.LoadUint64(&sendersNoted[sig])
	code := int32(noted)
	switch code {
	case byKill, byQueue, byThreadKill:
		s.PID = int(noted >> 32)
	}
	s.Kernel = code > 0
	return s, true
}

// CameAfter reports whether the last one of a signal came after the last one of another, where
// senders are noted of both. Package os/signal hands on those that come together by their numbers.
// Of two that other threads of this process get within microseconds it may be wrong.
func CameAfter(sig, other syscall.Signal) bool {
	return atomic.LoadUint64(&orderNoted[sig]) > atomic.LoadUint64(&orderNoted[other])
}
