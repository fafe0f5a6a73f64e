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
	processes, _ := os.ReadDir("/proc")
	for _, process := range processes {
		pid, err := strconv.Atoi(process.Name())
		if err != nil {
			continue
		}
		dir, environ := environOf("/proc/" + process.Name())
		if !hasAll(environ, variables) {
			continue
		}
		if cmdline, _ := os.ReadFile(dir + "/cmdline"); len(cmdline) > 0 {
			found[pid] = dir
		}
	}
	return found
}

// environOf returns the environment of a process, and the directory of the thread that shows it.
// All threads have the same one. So another one is looked at only if the main thread shows nothing,
// because it has ended: tests ask again and again, beside hundreds of processes.
func environOf(process string) (dir string, environ []byte) {
	if environ, _ = os.ReadFile(process + "/environ"); len(environ) > 0 {
		return process, environ
	}
	threads, _ := os.ReadDir(process + "/task")
	for _, thread := range threads {
		dir = process + "/task/" + thread.Name()
		if environ, _ = os.ReadFile(dir + "/environ"); len(environ) > 0 {
			return dir, environ
		}
	}
	return process, nil
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
