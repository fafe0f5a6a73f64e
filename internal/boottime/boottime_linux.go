//go:build !etcdlock_shifted_clock

package boottime

import (
	"os"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// Now returns the present instant.
func Now() Instant {
	now, err := kernel.BootTime()
	if err != nil {
		panic("boottime: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return Instant(now)
}

// timerfd is an alarm of the kernel's own.
type timerfd struct {
	fd   int
	file *os.File
}

func newAlarm(c chan<- struct{}) alarm {
	fd, err := kernel.NewTimerFD()
	if err != nil {
		return newPoller(c, pollEvery) // out of descriptors: the deadline must be kept all the same
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
	// A value of zero would stop it.
	if err := kernel.SetTimerFD(t.fd, max(time.Duration(at), 1)); err != nil {
		panic("boottime: " + err.Error()) // only a wrong argument is refused
	}
}

func (t *timerfd) close() { t.file.Close() }
