package model

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// TestMain gives way to the tests of other packages: this one needs a processor for minutes, and
// does not care when; to others it matters when they get one. With a lower priority than this it
// would get next to nothing on a machine that is busy with something else, and not be done in go
// test's 10 minutes.
func TestMain(m *testing.M) {
	threads, _ := os.ReadDir("/proc/self/task") // where there is none, it takes what it gets
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, tid, 5)
		}
	}
	os.Exit(m.Run())
}
