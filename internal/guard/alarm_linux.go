package guard

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// An alarm is a timer of the kernel's that kills this process, also while it is stopped.
type alarm struct {
	id int32
	ok bool
}

// sigevent is the kernel's struct sigevent, which has 64 bytes.
type sigevent struct {
	value  uintptr
	signo  int32
	notify int32
	_      [64 - 8 - unsafe.Sizeof(uintptr(0))]byte
}

// itimerspec is the kernel's.
type itimerspec struct{ interval, value unix.Timespec }

// newAlarm returns an alarm that is not set. Where there is none to be had it does nothing: it is a last resort.
func newAlarm() *alarm {
	a := &alarm{}
	event := sigevent{signo: int32(unix.SIGKILL)} // notify 0 is SIGEV_SIGNAL
	_, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&a.id)))
	a.ok = errno == 0
	return a
}

// set sets the alarm to an instant; 0 takes it back.
func (a *alarm) set(at boottime.Instant) {
	if !a.ok {
		return
	}
	const absolute = 1 // TIMER_ABSTIME
	spec := itimerspec{value: unix.NsecToTimespec(int64(at))}
	unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(a.id), absolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
}
