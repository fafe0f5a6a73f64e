package etcdtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Processes returns the processes that run with all of these variables ("NAME=value") in their
// environment, and the directory in /proc of a thread of each: what a program has left is found by
// that, wherever it went. Those that are dead and not waited for do not count. Linux only.
func Processes(variables ...string) map[int]string {
	found := map[int]string{}
	// A process whose main thread has ended shows nothing but by way of another one.
	for _, pattern := range []string{"/proc/[0-9]*", "/proc/[0-9]*/task/*"} {
		dirs, _ := filepath.Glob(pattern) // the pattern is right
		for _, dir := range dirs {
			environ, err := os.ReadFile(dir + "/environ")
			if err != nil || !hasAll(environ, variables) {
				continue
			}
			number, _, _ := strings.Cut(strings.TrimPrefix(dir, "/proc/"), "/")
			pid, err := strconv.Atoi(number)
			if cmdline, _ := os.ReadFile(dir + "/cmdline"); err == nil && len(cmdline) > 0 {
				found[pid] = dir
			}
		}
	}
	return found
}

func hasAll(environ []byte, variables []string) bool {
	environ = append([]byte{0}, environ...)
	for _, v := range variables {
		if !bytes.Contains(environ, []byte("\x00"+v+"\x00")) {
			return false
		}
	}
	return true
}

// Children returns the ids of the children of a process. Linux only.
func Children(pid int) (all []int) {
	// Children belong to the thread that started them.
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, file := range lists {
		list, _ := os.ReadFile(file) // it may have just ended
		for _, word := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}
