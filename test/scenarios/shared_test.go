//go:build linux

package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
)

// untilStopped is a command that says that it runs, and in which mode, until it is told to stop.
var untilStopped = []string{"--", "sh", "-c", `echo "runs $ETCDLOCK_HELD_MODE"; trap exit TERM; while :; do sleep 0.05; done`}

// TestShared: commands that share a lock run together, and one that does not runs alone. Who waits
// is told who shares it.
func TestShared(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	run := func(id string, options ...string) *program {
		return locker(t, s.Endpoint(), append(append([]string{"-i", id}, options...), untilStopped...)...)
	}
	for _, keys := range [][]string{{"/shared/one"}, {"/shared/two-1", "/shared/two-2"}} {
		options := func(more ...string) []string { return append(keysOf(keys...), more...) }
		var sharing []*program
		for _, id := range []string{"a", "b", "c", "d"} {
			p := run(id, options("-x", "-s")...)
			p.says(p.stdout, "runs shared")
			sharing = append(sharing, p)
		}
		saysMode(t, s, keys[0]+"/", record.Record{Mode: "shared"}, 4)
		if p := run("none", options("--try")...); p.code() != 1 || !strings.Contains(p.stderr.String(), `lock "`+keys[0]+`" is shared by 4 ("a", "b", "c" and 1 more)`) {
			t.Errorf("--try: %q", p.stderr)
		}
		alone := run("alone", options("-s", "-x")...)
		alone.says(alone.stderr, `shared by 4 ("a", "b", "c" and 1 more), place `)
		alone.says(alone.stderr, "place 1 in line\n")
		later := run("later", options("--shared")...)
		later.says(later.stderr, "place 2 in line (shared)")
		if p := run("none", options("-s", "--try")...); p.code() != 1 {
			t.Errorf("--try to share it before one who waits: %q", p.stderr)
		}
		for _, p := range sharing {
			if alone.stdout.String() != "" {
				t.Error("it runs beside one that shares the lock")
			}
			p.signal(syscall.SIGTERM)
			p.code()
		}
		alone.says(alone.stdout, "runs exclusive")
		if later.stdout.String() != "" {
			t.Error("it shares a lock that another has alone")
		}
		alone.signal(syscall.SIGTERM)
		alone.code()
		later.says(later.stdout, "runs shared")
		later.signal(syscall.SIGTERM)
		later.code()
	}
	s.Empty(t)
}

// saysMode fails the test unless there are so many records below a prefix, and each says a mode.
func saysMode(t *testing.T, s *etcdtest.Server, prefix string, want record.Record, n int) {
	t.Helper()
	resp, err := s.Client(t).Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, kv := range resp.Kvs {
		r, err := record.Parse(kv.Value)
		if err != nil {
			continue
		}
		if found++; r.Mode != want.Mode || r.Slots != want.Slots {
			t.Errorf("the record of %q says mode %q of %d", kv.Key, r.Mode, r.Slots)
		}
	}
	if found != n {
		t.Errorf("%d records below %q", found, prefix)
	}
}

// TestSharedByVariable: it is about the key that comes from the environment, and no other, and is
// not handed on.
func TestSharedByVariable(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), filepath.Join(programs, "etcdlocker")
	says := []string{"sh", "-c", `echo "$ETCDLOCK_HELD_MODE$ETCD_LOCK_SHARED"`}
	for name, one := range map[string]struct {
		args []string
		want string
	}{
		"its key":                      {nil, "shared"},
		"its key, and an option":       {[]string{"-x"}, "exclusive"},
		"another key":                  {[]string{"-k", "/shared/another"}, "exclusive"},
		"another one below":            {[]string{"--", again, "-k", "/shared/below"}, "exclusive"},
		"a key in the variable, below": {[]string{"--", "env", "ETCD_LOCK_KEY=/shared/in-variable", again}, "exclusive"},
	} {
		vars := []string{"ETCD_LOCK_KEY=/shared/by-variable", "ETCD_LOCK_SHARED=1", "ETCD_LOCK_HOST=" + s.Endpoint()}
		p := start(t, vars, "etcdlocker", append(one.args, says...)...)
		if code := p.code(); code != 0 || p.stdout.String() != one.want+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.stdout, p.stderr)
		}
	}
}

// TestSharedAndNested: who asks for a lock that the command above it shares has it as well, unless
// somebody waits for it alone: then it would wait for itself.
func TestSharedAndNested(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), filepath.Join(programs, "etcdlocker")
	const key = "/shared/nested"
	if p := locker(t, s.Endpoint(), "-s", "-k", key, "--", again, "-s", "-k", key, "echo", "ran"); p.code() != 0 || p.stdout.String() != "ran\n" {
		t.Errorf("two that share it: %q, %q", p.stdout, p.stderr)
	}
	if p := locker(t, s.Endpoint(), "-s", "-k", key, "--", again, "-k", key, "echo", "ran"); p.code() != 1 || !strings.Contains(p.stderr.String(), "is already held by the command that asks for it") {
		t.Errorf("one that wants it alone below one that shares it: %q, %q", p.stdout, p.stderr)
	}
	goOn := filepath.Join(t.TempDir(), "go")
	p := locker(t, s.Endpoint(), "-s", "-k", key, "--", "sh", "-c", `echo begins; while [ ! -e "$1" ]; do sleep 0.05; done; "$0" -s -k "$2" echo ran`, again, goOn, key)
	p.says(p.stdout, "begins")
	waits := locker(t, s.Endpoint(), "-k", key, "echo", "after it")
	waits.says(waits.stderr, "place 1 in line")
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.code() != 1 || !strings.Contains(p.stderr.String(), "is already held by the command that asks for it") {
		t.Errorf("behind one that waits: %q, %q", p.stdout, p.stderr)
	}
	if waits.code() != 0 || waits.stdout.String() != "after it\n" {
		t.Errorf("who waits: %q, %q", waits.stdout, waits.stderr)
	}
}

// TestSharedAndLost: whoever shares a lock and loses it is stopped, with its command. Others go on.
func TestSharedAndLost(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	const key = "/shared/lost"
	var all []*program
	for range 2 {
		p := locker(t, s.Endpoint(), append([]string{"-s", "-k", key}, untilStopped...)...)
		p.says(p.stdout, "runs shared")
		all = append(all, p)
	}
	first := etcdtest.Keys(t, s.Client(t), key+"/")[0]
	if _, err := s.Client(t).Delete(etcdtest.Context(t), string(first.Key)); err != nil {
		t.Fatal(err)
	}
	var lost, other *program
	select {
	case <-all[0].done:
		lost, other = all[0], all[1]
	case <-all[1].done:
		lost, other = all[1], all[0]
	}
	if code := lost.code(); code != 2 || !strings.Contains(lost.stderr.String(), "its place in line was deleted") {
		t.Errorf("exit code %d, %q", code, lost.stderr)
	}
	select {
	case <-other.done:
		t.Errorf("the other has ended: %q", other.stderr)
	default:
	}
	other.signal(syscall.SIGTERM)
	other.code()
	s.Empty(t)
}

// TestSharedTakeover: what a killed holder has shared is taken at once by who waits for it alone.
func TestSharedTakeover(t *testing.T) {
	t.Parallel()
	s, vars := etcdtest.Shared(t), []string{"XDG_RUNTIME_DIR=" + t.TempDir()}
	const key = "/shared/takeover"
	words := append([]string{"-e", s.Endpoint(), "-t", "300", "-s", "-k", key}, untilStopped...)
	crashing := start(t, vars, "etcdlocker", words...)
	crashing.says(crashing.stdout, "runs shared")
	next := start(t, vars, "etcdlocker", "-e", s.Endpoint(), "-k", key, "echo", "ran")
	next.says(next.stderr, "place 1 in line")
	crashing.signal(syscall.SIGKILL)
	if code := next.code(); code != 0 || next.stdout.String() != "ran\n" || !strings.Contains(next.stderr.String(), tookOver) {
		t.Errorf("exit code %d, %q", code, next.stderr)
	}
}
