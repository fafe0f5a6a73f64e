package kernel

import (
	"runtime"
	"syscall"
	"unsafe"
)

// Unsignaled calls f on a thread that gets no signals meanwhile but KILL and STOP. What f starts
// there gets none either, until it says otherwise. It returns the signals that the thread has
// blocked before and after, a bit for each.
func Unsignaled(f func()) (mask uint64) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mask, err := SetSignalMask(^uint64(0))
	f()
	if err == nil {
		SetSignalMask(mask)
	}
	return mask
}

// SetSignalMask sets the signals that the calling thread, and what it starts, has blocked. It
// returns those that it had.
func SetSignalMask(mask uint64) (before uint64, err error) {
	const setMask, size = 2, unsafe.Sizeof(mask)
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&before)), size, 0, 0)
	return before, errnoOf(e)
}
