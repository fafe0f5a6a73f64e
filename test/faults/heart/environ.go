//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

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
		// It may be another user's, or about to be executed, or its main thread has ended.
		return false
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
