package kernel

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// Of sched(7). The numbers of the calls differ from machine to machine, package syscall has them.
const (
	SchedOther = 0
	SchedFIFO  = 1
	SchedRR    = 2

	// SchedResetOnFork is added to a policy that children, and new threads as well, do not inherit.
	SchedResetOnFork = 0x40000000
)

// Scheduler returns the scheduling policy of a thread, with SchedResetOnFork if it has that, and
// its real-time priority, which is 0 for policies that have none. Thread 0 is the calling one.
func Scheduler(tid int) (policy, priority int, err error) {
	r, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETSCHEDULER, uintptr(tid), 0, 0)
	if e != 0 {
		return 0, 0, e
	}
	var param int32
	_, _, e = syscall.RawSyscall(syscall.SYS_SCHED_GETPARAM, uintptr(tid), uintptr(unsafe.Pointer(&param)), 0)
	return int(r), int(param), errnoOf(e)
}

// SetScheduler changes them.
func SetScheduler(tid, policy, priority int) error {
	param := int32(priority)
	_, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, uintptr(tid), uintptr(policy), uintptr(unsafe.Pointer(&param)))
	return errnoOf(e)
}

// schedAttr is the kernel's struct sched_attr in its first version.
type schedAttr struct {
	size, policy uint32
	flags        uint64
	nice         int32
	priority     uint32
	slice        uint64 // in nanoseconds; of real-time policies something else
	_, _         uint64
}

// SetSlice has a thread with an ordinary policy ask for the processor for so long at a time. The
// shorter that is, the sooner it gets it when it wakes up; 0 is the kernel's usual one. Before
// Linux 6.12 nothing changes.
func SetSlice(tid int, slice time.Duration) error {
	setattr, known := map[string]uintptr{ // sched_getattr is the next one
		"386": 351, "amd64": 314, "arm": 380, "arm64": 274, "loong64": 274, "ppc64le": 355, "riscv64": 274, "s390x": 345,
	}[runtime.GOARCH]
	if !known {
		return syscall.ENOSYS
	}
	attr := schedAttr{size: uint32(unsafe.Sizeof(schedAttr{}))}
	_, _, e := syscall.RawSyscall6(setattr+1, uintptr(tid), uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0, 0, 0)
	if e != 0 || attr.policy != SchedOther {
		return errnoOf(e)
	}
	attr.slice = uint64(slice)
	_, _, e = syscall.RawSyscall(setattr, uintptr(tid), uintptr(unsafe.Pointer(&attr)), 0)
	return errnoOf(e)
}

// Of mlockall(2).
const (
	mclCurrent = 1
	mclFuture  = 2
	mclOnFault = 4
)

// LockMemory keeps the pages that this process has, and those that it will touch, in memory. It
// provides none: memory does not grow by it.
func LockMemory() error {
	_, _, e := syscall.RawSyscall(syscall.SYS_MLOCKALL, mclCurrent|mclFuture|mclOnFault, 0, 0)
	return errnoOf(e)
}
