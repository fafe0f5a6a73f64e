package kernel

import (
	"syscall"
	"time"
	"unsafe"
)

// errnoOf returns nil for the number of no error.
func errnoOf(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// clockBoottime counts the time in suspend as well.
const clockBoottime = 7

// BootTime returns the time on the boot clock.
func BootTime() (time.Duration, error) {
	var ts syscall.Timespec
	_, _, e := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano()), errnoOf(e)
}

// itimerspec is the kernel's: a timer that expires at value, and at each interval after it if there
// is one.
type itimerspec struct{ interval, value syscall.Timespec }

func at(when time.Duration) *itimerspec {
	return &itimerspec{value: syscall.NsecToTimespec(int64(when))}
}

// absolute is TIMER_ABSTIME and TFD_TIMER_ABSTIME.
const absolute = 1

// NewTimerFD returns a descriptor, which does not block, of a timer on the boot clock.
func NewTimerFD() (fd int, err error) {
	r, _, e := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, clockBoottime, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	return int(r), errnoOf(e)
}

// SetTimerFD sets such a timer to a time on the boot clock; 0 stops it.
func SetTimerFD(fd int, when time.Duration) error {
	_, _, e := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(fd), absolute, uintptr(unsafe.Pointer(at(when))), 0, 0, 0)
	return errnoOf(e)
}

// A SignalTimer is a timer of the kernel's that sends this process a signal, also while it is
// stopped.
type SignalTimer struct{ id int32 }

// sigevent is the kernel's struct sigevent, which has 64 bytes.
type sigevent struct {
	value  uintptr
	signo  int32
	notify int32 // 0 is SIGEV_SIGNAL
	_      [64 - 8 - unsafe.Sizeof(uintptr(0))]byte
}

// NewSignalTimer returns a timer that is not set.
func NewSignalTimer(sig syscall.Signal) (*SignalTimer, error) {
	t, event := &SignalTimer{}, sigevent{signo: int32(sig)}
	_, _, e := syscall.RawSyscall(syscall.SYS_TIMER_CREATE, clockBoottime, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&t.id)))
	return t, errnoOf(e)
}

// Close takes it away.
func (t *SignalTimer) Close() { syscall.RawSyscall(syscall.SYS_TIMER_DELETE, uintptr(t.id), 0, 0) }

// Set sets it to a time on the boot clock, and again and again after that if every is not 0; when 0
// takes it back.
func (t *SignalTimer) Set(when, every time.Duration) error {
	spec := at(when)
	spec.interval = syscall.NsecToTimespec(int64(every))
	_, _, e := syscall.RawSyscall6(syscall.SYS_TIMER_SETTIME, uintptr(t.id), absolute, uintptr(unsafe.Pointer(spec)), 0, 0, 0)
	return errnoOf(e)
}

// The numbers of newer calls, which are the same everywhere but on MIPS: there it is as with an old
// kernel.
const (
	sysPidfdSendSignal = 424
	sysPidfdOpen       = 434
)

// PidfdOpen returns a descriptor of a process. ENOSYS: not before Linux 5.3.
func PidfdOpen(pid int) (fd int, err error) {
	r, _, e := syscall.RawSyscall(sysPidfdOpen, uintptr(pid), 0, 0)
	return int(r), errnoOf(e)
}

// Dup returns another number for a descriptor, which is not inherited.
func Dup(fd int) (again int, err error) {
	r, _, e := syscall.RawSyscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_DUPFD_CLOEXEC, 0)
	return int(r), errnoOf(e)
}

// PidfdSignal sends a signal to the process of a descriptor.
func PidfdSignal(fd int, sig syscall.Signal) error {
	_, _, e := syscall.RawSyscall6(sysPidfdSendSignal, uintptr(fd), uintptr(sig), 0, 0, 0, 0)
	return errnoOf(e)
}

// Signal sends a signal to a process: through a descriptor of it, or by its number if the
// descriptor is negative or the call is refused, as by a sandbox that does not know it. The number
// must be the process's own.
func Signal(pid, fd int, sig syscall.Signal) error {
	if fd >= 0 {
		if err := PidfdSignal(fd, sig); err == nil || err == syscall.ESRCH {
			return err
		}
	}
	return syscall.Kill(pid, sig)
}

// Of waitid(2).
const (
	pAll       = 0
	pPID       = 1
	wStopped   = 2
	wExited    = 4
	wContinued = 8
	wNoWait    = 0x01000000
	wAll       = 0x40000000
)

// IsChild reports whether a process is a child of this one, also one that has ended and was not
// waited for.
func IsChild(pid int) bool {
	_, _, e := syscall.RawSyscall6(syscall.SYS_WAITID, pPID, uintptr(pid), 0, wExited|wNoWait|wAll|syscall.WNOHANG, 0, 0)
	return e == 0
}

// HasChildren reports whether this process has children, also ones that have ended and were not
// waited for.
func HasChildren() bool {
	_, _, e := syscall.RawSyscall6(syscall.SYS_WAITID, pAll, 0, 0, wExited|wNoWait|wAll|syscall.WNOHANG, 0, 0)
	return e != syscall.ECHILD
}

// AwaitChild waits until a child has ended, or also until one has stopped or goes on, and leaves
// that to be told by wait4. ECHILD: there is no child.
func AwaitChild(stops bool) error {
	options := wExited | wNoWait
	if stops {
		options |= wStopped | wContinued
	}
	_, _, e := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, 0, uintptr(options), 0, 0)
	return errnoOf(e)
}

// NoChildSignals has the kernel send this process no SIGCHLD. Go takes the signal, which interrupts
// a thread, though nobody asked for it. Children that have ended still wait to be waited for.
func NoChildSignals() error {
	var byDefault [4]uintptr // struct sigaction: SIG_DFL
	_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	return errnoOf(e)
}

// Of prctl(2).
const (
	prSetName           = 15
	prSetTimerSlack     = 29
	prGetTimerSlack     = 30
	prSetChildSubreaper = 36
	prGetChildSubreaper = 37
)

// AdoptOrphans makes orphans among the descendants of this process fall to it instead of to init,
// or no longer.
func AdoptOrphans(on bool) error {
	value := uintptr(0)
	if on {
		value = 1
	}
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetChildSubreaper, value, 0, 0, 0, 0)
	return errnoOf(e)
}

// AdoptsOrphans reports whether they fall to it.
func AdoptsOrphans() bool {
	var on int32
	_, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prGetChildSubreaper, uintptr(unsafe.Pointer(&on)), 0, 0, 0, 0)
	return e == 0 && on != 0
}

// SetName names this thread, the main one being the process, as ps and killall see it: 15 bytes of
// it.
func SetName(name string) {
	var b [16]byte
	copy(b[:15], name)
	syscall.RawSyscall6(syscall.SYS_PRCTL, prSetName, uintptr(unsafe.Pointer(&b)), 0, 0, 0, 0)
}

// TimerSlack returns by how much later than asked the kernel may wake up the calling thread; 0 if
// it does not say. Since Linux 6.12 that is so for a thread with a real-time priority, which has
// none.
func TimerSlack() time.Duration {
	r, _, e := syscall.RawSyscall6(syscall.SYS_PRCTL, prGetTimerSlack, 0, 0, 0, 0, 0)
	if e != 0 {
		return 0
	}
	return time.Duration(r)
}

// SetTimerSlack sets it. Threads and processes that the calling thread starts begin with the same.
func SetTimerSlack(slack time.Duration) {
	syscall.RawSyscall6(syscall.SYS_PRCTL, prSetTimerSlack, uintptr(slack), 0, 0, 0, 0)
}

// Of madvise(2).
const (
	madvPopulateWrite = 23
	madvCollapse      = 25
)

// Populate provides the pages of memory that may be written to, without changing what is in them.
func Populate(begin, size uintptr) error {
	_, _, e := syscall.RawSyscall(syscall.SYS_MADVISE, begin, size, madvPopulateWrite)
	return errnoOf(e)
}

// Collapse puts memory into huge pages, whether or not it has pages yet.
func Collapse(begin, size uintptr) error {
	_, _, e := syscall.RawSyscall(syscall.SYS_MADVISE, begin, size, madvCollapse)
	return errnoOf(e)
}

// Receive reads a message from a socket, and control messages, of which it returns the length. With
// MSG_DONTWAIT Go's scheduler is not told: that would wake up threads for nothing.
func Receive(fd int, b, control []byte, flags int) (n, cn int, err error) {
	part := syscall.Iovec{Base: unsafe.SliceData(b)}
	part.SetLen(len(b))
	m := syscall.Msghdr{Iov: &part, Iovlen: 1, Control: unsafe.SliceData(control)}
	m.SetControllen(len(control))
	var r uintptr
	var e syscall.Errno
	if flags&syscall.MSG_DONTWAIT != 0 {
		r, _, e = syscall.RawSyscall(sysRecvmsg, uintptr(fd), uintptr(unsafe.Pointer(&m)), uintptr(flags))
	} else {
		r, _, e = syscall.Syscall(sysRecvmsg, uintptr(fd), uintptr(unsafe.Pointer(&m)), uintptr(flags))
	}
	if e != 0 {
		return 0, 0, e
	}
	return int(r), int(m.Controllen), nil
}

// Send sends a message, with control messages, to a socket that is not waited for (MSG_DONTWAIT).
func Send(fd int, b, control []byte, flags int) error {
	part := syscall.Iovec{Base: unsafe.SliceData(b)}
	part.SetLen(len(b))
	m := syscall.Msghdr{Iov: &part, Iovlen: 1}
	if len(control) > 0 {
		m.Control = unsafe.SliceData(control)
		m.SetControllen(len(control))
	}
	_, _, e := syscall.RawSyscall(sysSendmsg, uintptr(fd), uintptr(unsafe.Pointer(&m)), uintptr(flags|syscall.MSG_DONTWAIT))
	return errnoOf(e)
}

// pollfd is the kernel's.
type pollfd struct {
	fd              int32
	events, revents int16
}

// Readable waits until a descriptor can be read, at most for so long, and reports whether it can.
func Readable(fd int, within time.Duration) bool {
	const pollIn = 1
	return poll(fd, pollIn, within) != 0 // what has failed or ended can be read
}

// Takes reports whether a descriptor takes a line without having its writer wait.
func Takes(fd int) bool {
	const pollOut = 4
	return poll(fd, pollOut, 0) == pollOut
}

// poll waits for some events of a descriptor, at most for so long, and returns what there is.
func poll(fd int, events int16, within time.Duration) int16 {
	p, timeout := pollfd{fd: int32(fd), events: events}, syscall.NsecToTimespec(int64(within))
	syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	return p.revents
}

// Uninterrupted calls f until it is not interrupted by a signal.
func Uninterrupted(f func() error) error {
	for {
		if err := f(); err != syscall.EINTR {
			return err
		}
	}
}
