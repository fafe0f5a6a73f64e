package guard

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// TestTestimony: a signal that came to the guard is told of once, if it came at about that time,
// and one that has not come is waited for.
func TestTestimony(t *testing.T) {
	const long, short = time.Minute, time.Millisecond
	heard := newTestimony()
	heard.add(uint64(syscall.SIGHUP))
	heard.add(uint64(syscall.SIGTERM))
	heard.add(1 << 40) // nonsense
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		if !heard.has(sig, long) {
			t.Errorf("%v has not come", sig)
		}
		if heard.has(sig, short) {
			t.Errorf("%v has come twice", sig)
		}
	}
	go func() {
		heard.add(uint64(syscall.SIGINT)) // another one
		for len(heard.news) > 0 {
			runtime.Gosched() // until it has been looked at
		}
		heard.add(uint64(syscall.SIGTERM))
	}()
	if !heard.has(syscall.SIGTERM, long) {
		t.Error("it was not waited for")
	}
	heard.at[syscall.SIGTERM].Store(int64(boottime.Now().Add(-time.Hour)))
	if heard.has(syscall.SIGTERM, short) {
		t.Error("it came long ago")
	}
}
