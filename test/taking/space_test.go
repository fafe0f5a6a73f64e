//go:build linux

package taking

import (
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestNoSpace: while etcd takes nothing but deletions, who holds a lock keeps it and gives it back,
// who waits goes on waiting and says why, and who comes is told what to do.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	holder := programs.Locker(t, s.Endpoint(), "-v", "-t", "60", "-r", "0.2", "-k", "/space", "sleep", "1000")
	holder.Says(holder.Stderr, "command started")
	waiter := programs.Locker(t, s.Endpoint(), "-t", "60", "-k", "/space", "echo", "ran")
	waiter.Says(waiter.Stderr, "place 1 in line")
	s.Alarm(t, true)
	holder.Renews(3)
	late := programs.Locker(t, s.Endpoint(), "-k", "/space", "echo", "ran")
	if code := late.Code(); code != 1 || !strings.Contains(late.Stderr.String(), "space exceeded") || !strings.Contains(late.Stderr.String(), "alarm disarm") {
		t.Errorf("who comes: exit code %d, %s", code, late.Stderr)
	}
	holder.Signal(syscall.SIGTERM)
	if code := holder.Code(); code != 143 || strings.Contains(holder.Stderr.String(), "did not confirm") {
		t.Errorf("the holder: exit code %d, %s", code, holder.Stderr)
	}
	waiter.Says(waiter.Stderr, "no space, waiting until it has")
	s.Alarm(t, false)
	if code := waiter.Code(); code != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.Stderr)
	}
	s.Empty(t)
}

// TestFewOperations: an etcd that takes few operations in a transaction is enough, and one that
// takes too few is named.
func TestFewOperations(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(8))
	holder := programs.Locker(t, s.Endpoint(), "-v", "-k", "/few", "sleep", "1000")
	holder.Says(holder.Stderr, "command started")
	waiter := programs.Locker(t, s.Endpoint(), "-k", "/few", "echo", "ran")
	waiter.Says(waiter.Stderr, "place 1 in line")
	holder.Signal(syscall.SIGTERM)
	if code := waiter.Code(); code != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.Stderr)
	}
	holder.Code()
	s.Empty(t)
	fewer := etcdtest.Start(t, etcdtest.WithMaxTxnOps(2))
	p := programs.Locker(t, fewer.Endpoint(), "-k", "/few", "echo", "ran")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "--max-txn-ops") {
		t.Errorf("with 2: exit code %d, %s", code, p.Stderr)
	}
}
