// Package gentle lets tests that need a processor for minutes give way to those to which it matters
// when they get one.
package gentle

import (
	"os"
	"strconv"
	"syscall"
)

// niceness is what tests run with. With a lower priority than this they would get next to nothing
// on a machine that is busy with something else, and not be done in go test's 10 minutes.
const niceness = 5

// GiveWay has the process, and what it starts, give way to others.
func GiveWay() {
	threads, _ := os.ReadDir("/proc/self/task") // without /proc it takes what it gets
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			syscall.Setpriority(syscall.PRIO_PROCESS, tid, niceness)
		}
	}
}
