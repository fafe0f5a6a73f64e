//go:build linux

package test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestListCommand: list and show say who holds a lock and who waits, in words and for programs.
func TestListCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	holder := locker(t, s.Endpoint(), "-v", "-k", "/list/a b", "-i", "me", "--why", "month end", "sleep", "1000")
	holder.says(holder.stderr, "command started")
	waiter := locker(t, s.Endpoint(), "-k", "/list/a b", "-i", "other", "true")
	waiter.says(waiter.stderr, "waiting for lock")
	tries := locker(t, s.Endpoint(), "-k", "/list/a b", "--try", "true")
	if code := tries.code(); code != 1 || !strings.Contains(tries.stderr.String(), "etcdlockctl show '/list/a b' says who is there") {
		t.Errorf("--try: exit code %d, %s", code, tries.stderr)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		p := start(t, nil, "etcdlockctl", append(args, "-e", s.Endpoint())...)
		if code := p.code(); code != want {
			t.Errorf("%q: exit code %d, %s", args, code, p.stderr)
		}
		return p.stdout.String()
	}
	rows := strings.Split(run(0, "list", "/list/"), "\n")
	if len(rows) != 3 || strings.Join(strings.Fields(rows[0]), " ") != "KEY HOLDER COMMAND HELD RENEWED WAITING" || !strings.HasPrefix(rows[1], `"/list/a b"  me      sleep`) {
		t.Errorf("list: %q", rows)
	}
	if got := run(0, "ls", "/list/", "-o", "key", "-0"); got != "/list/a b\x00" {
		t.Errorf("-o key: %q", got)
	}
	if got := run(0, "list", "/list/", "--no-headers", "--host", "elsewhere"); got != "" {
		t.Errorf("--host: %q", got)
	}
	var all struct {
		Locks []struct {
			Key, State, Mode string
			Token            int64
			Holder           struct{ Kind, ID, User, Why string }
			Waiters          []struct{ ID string }
		}
		Revision int64
	}
	if err := json.Unmarshal([]byte(run(0, "list", "/list/", "-o", "json")), &all); err != nil || len(all.Locks) != 1 || all.Revision == 0 {
		t.Fatalf("-o json: %+v, %v", all, err)
	}
	if l := all.Locks[0]; l.Key != "/list/a b" || l.State != "held" || l.Mode != "exclusive" || l.Token == 0 || l.Holder.Kind != "etcdlocker" || l.Holder.User == "" || l.Holder.Why != "month end" ||
		l.Holder.ID != "me" || len(l.Waiters) != 1 || l.Waiters[0].ID != "other" {
		t.Errorf("-o json: %+v", l)
	}
	if got := run(0, "show", "/list/a b"); !strings.Contains(got, "is held\n  holder  me, pid ") || !strings.Contains(got, "etcdlockctl break '/list/a b' --token ") {
		t.Errorf("show: %s", got)
	}
	if got := run(0, "show", "-q", "/list/a b"); got != "" {
		t.Errorf("show -q: %s", got)
	}
	if got := run(3, "show", "/list/none"); got != "lock /list/none is free\n" {
		t.Errorf("show of a free lock: %s", got)
	}
	holder.signal(syscall.SIGTERM)
	holder.code()
	if code := waiter.code(); code != 0 {
		t.Errorf("the waiter: exit code %d", code)
	}
}
