package boottime

import "golang.org/x/sys/windows"

// Now returns the present instant, in steps of 10 to 16 ms. The count includes sleep.
func Now() Instant { return Instant(windows.DurationSinceBoot()) }

func newAlarm(c chan<- struct{}) alarm { return newPoller(c, pollEvery) }
