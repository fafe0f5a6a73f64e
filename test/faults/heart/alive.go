//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// alive reports whether a thread of a process can still run: it is not dead, has not begun to exit,
// and no SIGKILL awaits it. (The main thread can be dead while others live; and on a busy machine
// the kernel needs a while to take a process down that was killed.)
func alive(pid int) bool {
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

// What is in the environment of all that a trial starts.
const (
	trialIs  = "ETCDLOCK_FAULTS="
	playerIs = "ETCDLOCK_FAULTS_PLAYER="
)

// crowd returns the names of the players whose processes of package crowd run in a trial, by
// process. These have a file for all of them.
func crowd(dir string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		comm, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if err != nil || string(comm) != "crowd\n" {
			continue
		}
		trial, player := environment(pid)
		if trial == dir && player != "" {
			found[pid] = player
		}
	}
	return found
}

// isStranger reports whether a process is known not to be of a trial: its id was another one's
// before.
func isStranger(pid int, dir string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environ) == 0 {
		return false // it may be another user's, or about to be executed, or its main thread has ended
	}
	trial, _ := environment(pid)
	return trial != dir
}

func environment(pid int) (trial, player string) {
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have just ended
	for word := range strings.SplitSeq(string(environ), "\x00") {
		if value, ok := strings.CutPrefix(word, trialIs); ok {
			trial = value
		}
		if value, ok := strings.CutPrefix(word, playerIs); ok {
			player = value
		}
	}
	return trial, player
}
