package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// NoLeaks fails the test if, when it is over, goroutines of this module run or child processes
// exist that did not at the call. Call it first, so that it looks last: after the cleanups
// registered later. Members of this package's processes and clusters do not count. Not for tests
// that run in parallel with others.
//
// Child processes are seen on Linux only.
func NoLeaks(t testing.TB) {
	before := running()
	t.Cleanup(func() {
		t.Helper()
		ctx, cancel := untilDeadline(t)
		defer cancel()
		// Long enough for what is about to end, and short enough to let the other tests run.
		ctx, cancel = context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		err := poll(ctx, func(context.Context) error { return newSince(before) })
		if err != nil {
			t.Error(err)
		}
	})
}

// running returns descriptions of what must not be left behind, by name.
func running() map[string]string {
	all := goroutines()
	for name, text := range children() {
		all[name] = text
	}
	return all
}

func newSince(before map[string]string) error {
	var errs []error
	for name, text := range running() {
		if _, ok := before[name]; !ok {
			errs = append(errs, fmt.Errorf("left behind: %s", text))
		}
	}
	return errors.Join(errs...)
}

// ours matches functions of this module and the places where it started goroutines, tests of its
// packages excepted.
var ours = regexp.MustCompile(`(?m)^(created by )?github\.com/etcdlock/etcdlock[./]`)

// goroutines returns the stacks of the goroutines that this module runs or has started.
func goroutines() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	found := map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		name, _, ok := strings.Cut(stack, " [") // "goroutine 12"
		if ok && ours.MatchString(stack) && !ignored(stack) {
			found[name] = stack
		}
	}
	return found
}

// ignored tells whether a stack is a test itself, or belongs to this package, whose servers may
// outlive a test.
func ignored(stack string) bool {
	return strings.Contains(stack, "\ncreated by testing.") ||
		strings.Contains(stack, "\nmain.main()") ||
		strings.Contains(stack, "github.com/etcdlock/etcdlock/internal/etcdtest.")
}

// children returns the processes that this one has started and not waited for yet.
func children() map[string]string {
	found := map[string]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		pid, rest, _ := strings.Cut(string(stat), " (")
		comm, rest, _ := cutLast(rest, ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
		if args[0] != memberName {
			found["process "+pid] = fmt.Sprintf("process %s (%s, state %s): %q", pid, comm, fields[0], args)
		}
	}
	return found
}

// cutLast is strings.Cut at the last separator: a process can have any name.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
