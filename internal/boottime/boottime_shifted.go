//go:build linux && etcdlock_shifted_clock

package boottime

import (
	"encoding/binary"
	"os"
	"time"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// A build with this tag is for tests of suspend, which no test can have otherwise: a file tells how
// far its clock is ahead of the machine's, as eight bytes, least first, in nanoseconds. Whoever
// writes it puts the clock forward for all processes that have the file's name in their
// environment, as the end of a suspend does.
const shiftVariable = "ETCDLOCK_SHIFTED_CLOCK"

var shiftFile, _ = os.Open(os.Getenv(shiftVariable)) // without one it is the machine's clock

// Now returns the present instant.
func Now() Instant {
	now, err := kernel.BootTime()
	if err != nil {
		panic("boottime: " + err.Error())
	}
	var shift [8]byte
	shiftFile.ReadAt(shift[:], 0)
	return Instant(now).Add(time.Duration(binary.LittleEndian.Uint64(shift[:])))
}

// The kernel's timers know nothing of the shift.
func newAlarm(c chan<- struct{}) alarm { return newPoller(c, 5*time.Millisecond) }
