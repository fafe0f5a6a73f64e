//go:build linux

package taking

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/test/programs"
)

// untilStopped is a command that says that it runs, and in which mode, until it is told to stop.
var untilStopped = []string{"--", "sh", "-c", `echo "runs $ETCDLOCK_HELD_MODE"; trap exit TERM; while :; do sleep 0.05; done`}

// TestShared: commands that share a lock run together, and one that does not runs alone. Who waits
// is told who shares it.
func TestShared(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	run := func(id string, options ...string) *programs.Run {
		return programs.Locker(t, s.Endpoint(), append(append([]string{"-i", id}, options...), untilStopped...)...)
	}
	for _, keys := range [][]string{{"/shared/one"}, {"/shared/two-1", "/shared/two-2"}} {
		options := func(more ...string) []string { return append(programs.Keys(keys...), more...) }
		var sharing []*programs.Run
		for _, id := range []string{"a", "b", "c", "d"} {
			p := run(id, options("-x", "-s")...)
			p.Says(p.Stdout, "runs shared")
			sharing = append(sharing, p)
		}
		saysMode(t, s, keys[0]+"/", record.Record{Mode: "shared"}, 4)
		if p := run("none", options("--try")...); p.Code() != 1 || !strings.Contains(p.Stderr.String(), `lock "`+keys[0]+`" is shared by 4 ("a", "b", "c" and 1 more)`) {
			t.Errorf("--try: %q", p.Stderr)
		}
		alone := run("alone", options("-s", "-x")...)
		alone.Says(alone.Stderr, `shared by 4 ("a", "b", "c" and 1 more), place `)
		alone.Says(alone.Stderr, "place 1 in line\n")
		later := run("later", options("--shared")...)
		later.Says(later.Stderr, "place 2 in line (shared)")
		if p := run("none", options("-s", "--try")...); p.Code() != 1 {
			t.Errorf("--try to share it before one who waits: %q", p.Stderr)
		}
		for _, p := range sharing {
			if alone.Stdout.String() != "" {
				t.Error("it runs beside one that shares the lock")
			}
			p.Signal(syscall.SIGTERM)
			p.Code()
		}
		alone.Says(alone.Stdout, "runs exclusive")
		if later.Stdout.String() != "" {
			t.Error("it shares a lock that another has alone")
		}
		alone.Signal(syscall.SIGTERM)
		alone.Code()
		later.Says(later.Stdout, "runs shared")
		later.Signal(syscall.SIGTERM)
		later.Code()
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
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
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
		p := programs.Start(t, vars, "etcdlocker", append(one.args, says...)...)
		if code := p.Code(); code != 0 || p.Stdout.String() != one.want+"\n" {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
	}
}

// TestSharedAndNested: who asks for a lock that the command above it shares has it as well, unless
// somebody waits for it alone: then it would wait for itself.
func TestSharedAndNested(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
	const key = "/shared/nested"
	if p := programs.Locker(t, s.Endpoint(), "-s", "-k", key, "--", again, "-s", "-k", key, "echo", "ran"); p.Code() != 0 || p.Stdout.String() != "ran\n" {
		t.Errorf("two that share it: %q, %q", p.Stdout, p.Stderr)
	}
	if p := programs.Locker(t, s.Endpoint(), "-s", "-k", key, "--", again, "-k", key, "echo", "ran"); p.Code() != 1 || !strings.Contains(p.Stderr.String(), "is already held by the command that asks for it") {
		t.Errorf("one that wants it alone below one that shares it: %q, %q", p.Stdout, p.Stderr)
	}
	goOn := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, s.Endpoint(), "-s", "-k", key, "--", "sh", "-c", `echo begins; while [ ! -e "$1" ]; do sleep 0.05; done; "$0" -s -k "$2" echo ran`, again, goOn, key)
	p.Says(p.Stdout, "begins")
	waits := programs.Locker(t, s.Endpoint(), "-k", key, "echo", "after it")
	waits.Says(waits.Stderr, "place 1 in line")
	if err := os.WriteFile(goOn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.Code() != 1 || !strings.Contains(p.Stderr.String(), "is already held by the command that asks for it") {
		t.Errorf("behind one that waits: %q, %q", p.Stdout, p.Stderr)
	}
	if waits.Code() != 0 || waits.Stdout.String() != "after it\n" {
		t.Errorf("who waits: %q, %q", waits.Stdout, waits.Stderr)
	}
}

// TestSharedAndLost: whoever shares a lock and loses it is stopped, with its command. Others go on.
func TestSharedAndLost(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	const key = "/shared/lost"
	var all []*programs.Run
	for range 2 {
		p := programs.Locker(t, s.Endpoint(), append([]string{"-s", "-k", key}, untilStopped...)...)
		p.Says(p.Stdout, "runs shared")
		all = append(all, p)
	}
	first := etcdtest.Keys(t, s.Client(t), key+"/")[0]
	if _, err := s.Client(t).Delete(etcdtest.Context(t), string(first.Key)); err != nil {
		t.Fatal(err)
	}
	var lost, other *programs.Run
	select {
	case <-all[0].Done:
		lost, other = all[0], all[1]
	case <-all[1].Done:
		lost, other = all[1], all[0]
	}
	if code := lost.Code(); code != 2 || !strings.Contains(lost.Stderr.String(), "its place in line was deleted") {
		t.Errorf("exit code %d, %q", code, lost.Stderr)
	}
	select {
	case <-other.Done:
		t.Errorf("the other has ended: %q", other.Stderr)
	default:
	}
	other.Signal(syscall.SIGTERM)
	other.Code()
	s.Empty(t)
}

// TestSharedTakeover: what a killed holder has shared is taken at once by who waits for it alone.
func TestSharedTakeover(t *testing.T) {
	t.Parallel()
	s, vars := etcdtest.Shared(t), []string{"XDG_RUNTIME_DIR=" + t.TempDir()}
	const key = "/shared/takeover"
	words := append([]string{"-e", s.Endpoint(), "-t", "300", "-s", "-k", key}, untilStopped...)
	crashing := programs.Start(t, vars, "etcdlocker", words...)
	crashing.Says(crashing.Stdout, "runs shared")
	next := programs.Start(t, vars, "etcdlocker", "-e", s.Endpoint(), "-k", key, "echo", "ran")
	next.Says(next.Stderr, "place 1 in line")
	crashing.Signal(syscall.SIGKILL)
	if code := next.Code(); code != 0 || next.Stdout.String() != "ran\n" || !strings.Contains(next.Stderr.String(), tookOver) {
		t.Errorf("exit code %d, %q", code, next.Stderr)
	}
}
