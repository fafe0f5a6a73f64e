//go:build linux

// Package alive tells what can still run from what only exists.
package alive

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Process reports whether a thread of a process can still run: it is not dead, has not begun to
// exit, and no SIGKILL awaits it. (The main thread can be dead while others live; and on a busy
// machine the kernel needs a while to take a process down that was killed.)
func Process(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is right
	for _, dir := range threads {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat[strings.LastIndex(string(stat), ")")+1:]), " ")
		fields := strings.Fields(rest)
		if len(fields) < 7 || strings.ContainsAny(fields[0], "ZX") {
			continue
		}
		const exiting = 4 // PF_EXITING
		flags, err := strconv.ParseUint(fields[6], 10, 64)
		if err == nil && flags&exiting == 0 && !killed(dir) {
			return true
		}
	}
	return false
}

// killed reports whether a thread has a SIGKILL pending.
func killed(dir string) bool {
	status, _ := os.ReadFile(dir + "/status") // it may have just ended
	for line := range strings.Lines(string(status)) {
		name, mask, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if signals, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64); err == nil && signals>>(unix.SIGKILL-1)&1 != 0 {
			return true
		}
	}
	return false
}
