package boottime

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the present instant.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("boottime: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return Instant(ts.Nano())
}

// timerfd is an alarm of the kernel's own.
type timerfd struct {
	fd   int
	file *os.File
}

func newAlarm(c chan<- struct{}) alarm {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return newPoller(c) // out of descriptors: the deadline must be kept all the same
	}
	t := &timerfd{fd: fd, file: os.NewFile(uintptr(fd), "timerfd")}
	go func() {
		buf := make([]byte, 8)
		for {
			if _, err := t.file.Read(buf); err != nil {
				return
			}
			ring(c)
		}
	}()
	return t
}

func (t *timerfd) set(at Instant) {
	// A value of zero would disarm it.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), int64(time.Nanosecond)))}
	if err := unix.TimerfdSettime(t.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic("boottime: " + err.Error()) // only a wrong argument is refused
	}
}

func (t *timerfd) close() { t.file.Close() }
