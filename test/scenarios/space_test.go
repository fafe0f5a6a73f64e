package scenarios

import (
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestNoSpace: while etcd takes nothing but deletions, who holds a lock keeps it and gives it back,
// who waits goes on waiting and says why, and who comes is told what to do.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	holder := locker(t, s.Endpoint(), "-v", "-t", "60", "-r", "0.2", "-k", "/space", "sleep", "1000")
	holder.says(holder.stderr, "command started")
	waiter := locker(t, s.Endpoint(), "-t", "60", "-k", "/space", "echo", "ran")
	waiter.says(waiter.stderr, "place 1 in line")
	s.Alarm(t, true)
	holder.renews(3)
	late := locker(t, s.Endpoint(), "-k", "/space", "echo", "ran")
	if code := late.code(); code != 1 || !strings.Contains(late.stderr.String(), "space exceeded") || !strings.Contains(late.stderr.String(), "alarm disarm") {
		t.Errorf("who comes: exit code %d, %s", code, late.stderr)
	}
	holder.signal(syscall.SIGTERM)
	if code := holder.code(); code != 143 || strings.Contains(holder.stderr.String(), "did not confirm") {
		t.Errorf("the holder: exit code %d, %s", code, holder.stderr)
	}
	waiter.says(waiter.stderr, "no space, waiting until it has")
	s.Alarm(t, false)
	if code := waiter.code(); code != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.stderr)
	}
	s.Empty(t)
}

// TestFewOperations: an etcd that takes few operations in a transaction is enough, and one that
// takes too few is named.
func TestFewOperations(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(8))
	holder := locker(t, s.Endpoint(), "-v", "-k", "/few", "sleep", "1000")
	holder.says(holder.stderr, "command started")
	waiter := locker(t, s.Endpoint(), "-k", "/few", "echo", "ran")
	waiter.says(waiter.stderr, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if code := waiter.code(); code != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.stderr)
	}
	holder.code()
	s.Empty(t)
	fewer := etcdtest.Start(t, etcdtest.WithMaxTxnOps(2))
	p := locker(t, fewer.Endpoint(), "-k", "/few", "echo", "ran")
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "--max-txn-ops") {
		t.Errorf("with 2: exit code %d, %s", code, p.stderr)
	}
}
