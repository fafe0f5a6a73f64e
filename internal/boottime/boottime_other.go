//go:build !linux && !darwin && !windows

package boottime

import "time"

var start = time.Now()

// Now returns the present instant. No clock that counts sleep is known for this system: a suspended
// machine may believe in its locks for longer than they last.
func Now() Instant { return Instant(time.Since(start)) + 1 }

func newAlarm(c chan<- struct{}) alarm { return newPoller(c, pollEvery) }
