package boottime

import "golang.org/x/sys/unix"

// Now returns the present instant. On darwin CLOCK_MONOTONIC goes on while the machine sleeps.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("boottime: " + err.Error())
	}
	return Instant(ts.Nano())
}

func newAlarm(c chan<- struct{}) alarm { return newPoller(c, pollEvery) }
