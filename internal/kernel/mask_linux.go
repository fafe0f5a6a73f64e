package kernel

import (
	"runtime"
	"syscall"
	"unsafe"
)

// Unsignaled calls f on a thread that gets no signals meanwhile but KILL and STOP. Nor does what f
// starts there, ever.
func Unsignaled(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := setMask(^uint64(0))
	f()
	if err == nil {
		setMask(before)
	}
}

// setMask sets the signals that the calling thread has blocked, and returns those that it had.
func setMask(mask uint64) (before uint64, err error) {
	const setMask, size = 2, unsafe.Sizeof(mask)
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, setMask, uintptr(unsafe.Pointer(&mask)), uintptr(unsafe.Pointer(&before)), size, 0, 0)
	return before, errnoOf(e)
}
