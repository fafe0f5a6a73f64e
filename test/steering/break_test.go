//go:build linux

package steering

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// tokenOf returns the token of the holder of a lock, as break takes it.
func tokenOf(t testing.TB, s *etcdtest.Server, key string) string {
	t.Helper()
	return strconv.FormatInt(programs.AwaitHeld(t, s.Client(t), key).Kvs[0].ModRevision, 10)
}

// TestBreakCommand: the command of whoever is asked to stop gets TERM and its grace, and the next
// one starts when it is dead. Both sides say what has happened.
func TestBreakCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/break/command"
	file := filepath.Join(t.TempDir(), "log")
	p := programs.Locker(t, s.Endpoint(), "-k", key, "-i", "first", "-t", "30", "--", "sh", "-c", `trap 'echo ends >> "$0"; exit' TERM; echo runs >> "$0"; while :; do sleep 0.05; done`, file)
	programs.AwaitFile(t, file)
	token := tokenOf(t, s, key)
	next := programs.Locker(t, s.Endpoint(), "-k", key, "-i", "next", "--", "sh", "-c", `echo next >> "$0"; sleep 30`, file)
	next.Says(next.Stderr, "waiting for lock")
	b := programs.Start(t, nil, "etcdlockctl", "break", key, "-e", s.Endpoint(), "--token", token, "--reason", "deploy 4711")
	if code := b.Code(); code != 0 || !strings.Contains(b.Stdout.String(), `asked "first" on `) || !strings.Contains(b.Stdout.String(), "it stopped after ") {
		t.Errorf("break: exit code %d, %q, %q", code, b.Stdout, b.Stderr)
	}
	if code := p.Code(); code != 2 || !strings.Contains(p.Stderr.String(), `etcdlocker: error: lock "`+key+`" was broken by `) ||
		!strings.Contains(p.Stderr.String(), `: "deploy 4711"`) {
		t.Errorf("the holder: exit code %d, %q", code, p.Stderr)
	}
	next.Says(next.Stderr, `etcdlocker: lock "`+key+`" acquired after `)
	etcdtest.Await(t, "the next one to run", func(ctx context.Context) error {
		if log := etcdtest.Read(t, file); log != "runs\nends\nnext\n" {
			return errors.New(log)
		}
		return nil
	})
	if b := programs.Start(t, nil, "etcdlockctl", "break", key, "-e", s.Endpoint(), "--token", token, "--reason", "again"); b.Code() != 3 {
		t.Errorf("with an old token: %q", b.Stderr)
	}
}

// TestBreakIsRefused: what is wrong is said before etcd is asked, and nothing is done.
func TestBreakIsRefused(t *testing.T) {
	t.Parallel()
	for says, args := range map[string][]string{
		"break needs the key":        {"break", "", "--token", "7", "--reason", "r"},
		`the key "/x~tail" ends in`:  {"break", "/x~tail", "--token", "7", "--reason", "r"},
		`the key "/x~since" ends in`: {"show", "/x~since"},
		"show needs the key":         {"show", ""},
		"--reason: say why":          {"break", "/x", "--token", "7"},
		"--reason: 257 bytes":        {"break", "/x", "--token", "7", "--reason", strings.Repeat("r", 257)},
		"--token: say which":         {"break", "/x", "--reason", "r"},
		"--token: -1":                {"break", "/x", "--token", "-1", "--reason", "r"},
		"break takes one key":        {"break", "--token", "7", "--reason", "r"},
		"--even-if-alive":            {"break", "/x", "--token", "7", "--reason", "r", "--even-if-alive"},
		`invalid argument "-1s" for "--wait" flag: it is negative`: {"break", "/x", "--token", "7", "--reason", "r", "--wait", "-1s"},
		"--timeout: 0s":                 {"break", "/x", "--token", "7", "--reason", "r", "--timeout", "0s"},
		`--etcd: endpoint "ftp://x" is`: {"break", "/x", "--token", "7", "--reason", "r", "--etcd", "ftp://x"},
	} {
		p := programs.Start(t, []string{"ETCD_LOCK_HOST=localhost:1"}, "etcdlockctl", args...)
		if code := p.Code(); code != 64 || !strings.HasPrefix(p.Stderr.String(), "etcdlockctl: error: "+says) {
			t.Errorf("%q: exit code %d, %q", args, code, p.Stderr)
		}
	}
}

// TestBreakByForce: it is refused while the holder renews, unless that is accepted. A dry run says
// what would be done.
func TestBreakByForce(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/break/force"
	p := programs.Locker(t, s.Endpoint(), "-k", key, "-t", "30", "-r", "1", "--", "sleep", "60")
	token := tokenOf(t, s, key)
	for _, tt := range []struct {
		code int
		says string
		args []string
	}{
		{0, "would ask ", []string{"-n"}},
		{0, "would take the lock away from ", []string{"-n", "--force"}},
		{3, "token", []string{"--id", "nobody"}},
		{3, "token", []string{"--slot", "0"}},
		{1, "renews its lease", []string{"--force"}},
		{0, "the lock was taken from ", []string{"--force", "--even-if-alive"}},
		{3, "nobody has it", []string{"--force"}},
	} {
		b := programs.Start(t, nil, "etcdlockctl", append([]string{"break", key, "-e", s.Endpoint(), "--token", token, "--reason", "r"}, tt.args...)...)
		if code := b.Code(); code != tt.code || !strings.Contains(b.Stdout.String()+b.Stderr.String(), tt.says) {
			t.Errorf("%q: exit code %d, %q, %q", tt.args, code, b.Stdout, b.Stderr)
		}
	}
	if code := p.Code(); code != 2 {
		t.Errorf("the holder: exit code %d, %q", code, p.Stderr)
	}
}

// TestBreakOnATerminal: without a token the holder is shown, and the last part of the key is typed.
func TestBreakOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/break/terminal"
	p := programs.Locker(t, s.Endpoint(), "-k", key, "-t", "30", "--", "sleep", "60")
	tokenOf(t, s, key)
	b := breakOnTerminal(t, s, key)
	b.Types("other\r")
	if code := b.Code(); code != 1 || !strings.Contains(b.Stdout.String(), "nothing was done") {
		t.Errorf("exit code %d, %q", code, b.Stdout)
	}
	b = breakOnTerminal(t, s, key)
	b.Types("terminal\r")
	if code := b.Code(); code != 0 || !strings.Contains(b.Stdout.String(), "on this host") {
		t.Errorf("exit code %d, %q", code, b.Stdout)
	}
	if code := p.Code(); code != 2 {
		t.Errorf("the holder: exit code %d", code)
	}
}

// breakOnTerminal runs break until it asks.
func breakOnTerminal(t *testing.T, s *etcdtest.Server, key string) *programs.Terminal {
	t.Helper()
	b := programs.CommandOnTerminal(t, 200, exec.Command(programs.Path("etcdlockctl"), "break", key, "-e", s.Endpoint(), "--reason", "r"))
	b.Shows("type terminal to ask it to stop: ")
	return b
}

// TestBreakWithoutAnswer: what etcd has not said, or refused, comes with a way out.
func TestBreakWithoutAnswer(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, _ := s.Gated(t)
	gate.Intercept(func(method string, _ proto.Message) etcdtest.Verdict {
		if strings.HasPrefix(method, "/etcdserverpb.KV/") {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	p := programs.Start(t, nil, "etcdlockctl", "break", "/x", "-e", gate.Endpoint(), "--token", "7", "--reason", "r", "--timeout", "200ms")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "did not answer within 200ms") || !strings.Contains(p.Stderr.String(), "hint: check that etcd runs") {
		t.Errorf("exit code %d, %s", code, p.Stderr)
	}
}

// TestBreakAfterADeletion: whose key somebody has deleted still ends, and is who show and break
// name. Break waits for it.
func TestBreakAfterADeletion(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/break/deleted"
	end := filepath.Join(t.TempDir(), "end")
	p := programs.Locker(t, s.Endpoint(), "-k", key, "-t", "60", "--grace", "30s", "-i", "me", "--", "sh", "-c", `trap 'echo ends; while [ ! -e "$0" ]; do sleep 0.05; done; exit' TERM; echo runs; while :; do sleep 0.05; done`, end)
	p.Says(p.Stdout, "runs")
	token := tokenOf(t, s, key)
	if _, err := s.Client(t).Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
	p.Says(p.Stdout, "ends")
	shows := programs.Start(t, nil, "etcdlockctl", "show", key, "-e", s.Endpoint())
	if code := shows.Code(); code != 0 || !strings.Contains(shows.Stdout.String(), " is held\n  holder  me, pid ") || !strings.Contains(shows.Stdout.String(), ", asked to stop by hand") ||
		!strings.Contains(shows.Stdout.String(), "  if it does not stop, to take the lock away, so that two may run at the same time: etcdlockctl break -e "+s.Endpoint()+" "+key+" --token "+token+" --reason TEXT --force\n") {
		t.Errorf("show: exit code %d, %s", code, shows.Stdout)
	}
	b := programs.Start(t, nil, "etcdlockctl", "break", key, "-e", s.Endpoint(), "--token", token, "--reason", "r", "--wait", "60s")
	b.Says(b.Stdout, "was asked to stop before, by hand")
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := b.Code(); code != 0 || !strings.Contains(b.Stdout.String(), "it stopped after ") {
		t.Errorf("break: exit code %d, %q, %s", code, b.Stdout, b.Stderr)
	}
	if code := p.Code(); code != 2 {
		t.Errorf("the holder: exit code %d, %s", code, p.Stderr)
	}
}
