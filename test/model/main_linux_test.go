package model

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// TestMain gives way to the tests of other packages: this one needs a processor for minutes, and does
// not care when; to others it matters when they get one.
func TestMain(m *testing.M) {
	threads, _ := os.ReadDir("/proc/self/task") // where there is none, it takes what it gets
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, tid, 19)
		}
	}
	os.Exit(m.Run())
}
