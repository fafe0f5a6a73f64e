//go:build linux

package steering

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// ctl runs etcdlockctl to its end.
func ctl(t *testing.T, s *etcdtest.Server, want int, args ...string) *programs.Run {
	t.Helper()
	p := programs.Start(t, nil, "etcdlockctl", append(args, "-e", s.Endpoint())...)
	if code := p.Code(); code != want {
		t.Errorf("%q: exit code %d, %q, %q", args, code, p.Stdout, p.Stderr)
	}
	return p
}

// pauseOf waits until there is a pause of a lock.
func pauseOf(t *testing.T, client *clientv3.Client, key string) (p admin.PauseEntry) {
	t.Helper()
	etcdtest.Await(t, "a pause", func(ctx context.Context) error {
		all, err := admin.Pauses(ctx, client, key)
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%+v, %v", all, err)
		}
		p = all[0]
		return nil
	})
	return p
}

// resume ends the pause of a lock.
func resume(t *testing.T, s *etcdtest.Server, key string) {
	t.Helper()
	ctl(t, s, 0, "resume", key, "--token", strconv.FormatInt(pauseOf(t, s.Client(t), key).Token, 10))
}

// TestPauseCommand: pause waits for the holder, keeps out etcdlocker in all its modes, and says how
// it ends. Everybody who waits, or tries, is told who has paused the lock, why and until when.
func TestPauseCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/pause/command"
	holder := programs.Locker(t, s.Endpoint(), "-k", key, "-i", "me", "sleep", "1000")
	programs.AwaitHeld(t, s.Client(t), key)
	p := programs.Start(t, nil, "etcdlockctl", "pause", key, "-e", s.Endpoint(), "--reason", "move the data")
	p.Says(p.Stdout, "waiting until ")
	waits := pauseOf(t, s.Client(t), key)
	resumes := fmt.Sprintf("to end that: etcdlockctl resume -e %s %s --token %d\n", s.Endpoint(), key, waits.Token)
	p.Says(p.Stdout, fmt.Sprintf("it waits in line (token %d); %s", waits.Token, resumes))
	if got := ctl(t, s, 0, "show", key).Stdout.String(); !strings.Contains(got, "is held\n") || !strings.Contains(got, `  1       a pause by `) || !strings.HasSuffix(got, resumes) {
		t.Errorf("show while it waits: %s", got)
	}
	tooLate := ctl(t, s, 1, "pause", key, "--reason", "again")
	if !strings.Contains(tooLate.Stderr.String(), "hint: to end that pause: "+strings.TrimPrefix(resumes, "to end that: ")) {
		t.Errorf("a second pause: %q", tooLate.Stderr)
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	if code := p.Code(); code != 0 {
		t.Fatalf("pause: exit code %d, %q", code, p.Stderr)
	}
	until := pauseOf(t, s.Client(t), key).Until.Local().Format("2006-01-02 15:04:05")
	if got := p.Stdout.String(); !strings.Contains(got, "lock "+key+" is paused until "+until) || !strings.Contains(got, resumes) {
		t.Errorf("it says %s", got)
	}
	says := regexp.MustCompile(`paused by \S+@\S+ until ` + until + `: "move the data"`)
	for _, args := range [][]string{{"--try"}, {"--try", "-s"}, {"--try", "--slots", "2"}, {"--try", "-k", key + "/b"}, {"--wait", "3"}} {
		l := programs.Locker(t, s.Endpoint(), append(append([]string{"-k", key}, args...), "true")...)
		if code := l.Code(); code != 1 || !says.MatchString(l.Stderr.String()) {
			t.Errorf("%q: exit code %d, %q", args, code, l.Stderr)
		}
	}
	if got := ctl(t, s, 0, "show", key).Stdout.String(); !strings.Contains(got, "is paused\n  holder  a pause by ") || !strings.Contains(got, resumes) {
		t.Errorf("show: %s", got)
	}
	if got := ctl(t, s, 0, "list", key, "--no-headers").Stdout.String(); !regexp.MustCompile(`^` + key + ` +"pause by \S+@\S+" +- +\S+ +- +0\n$`).MatchString(got) {
		t.Errorf("list: %q", got)
	}
	var line struct {
		State  string
		Holder struct {
			Kind  string
			Pause struct{ Reason, Until string }
		}
	}
	if err := json.Unmarshal([]byte(ctl(t, s, 0, "show", key, "-o", "json").Stdout.String()), &line); err != nil ||
		line.State != "paused" || line.Holder.Kind != "pause" || line.Holder.Pause.Reason != "move the data" || line.Holder.Pause.Until == "" {
		t.Errorf("show -o json: %+v, %v", line, err)
	}
	b := ctl(t, s, 1, "break", key, "--token", fmt.Sprint(waits.Token), "--reason", "r", "--force", "--even-if-alive")
	if !strings.Contains(b.Stderr.String(), "hint: "+resumes) {
		t.Errorf("break: %s", b.Stderr)
	}
	again := ctl(t, s, 1, "pause", key, "--reason", "again")
	if !says.MatchString(again.Stderr.String()) || !strings.Contains(again.Stderr.String(), "hint: to end that pause: etcdlockctl resume -e ") {
		t.Errorf("a second pause: %q", again.Stderr)
	}
	ctl(t, s, 3, "resume", key, "--token", fmt.Sprint(waits.Token-1))
	resume(t, s, key)
	ctl(t, s, 3, "resume", key, "--token", fmt.Sprint(waits.Token))
	programs.CheckFree(t, s.Client(t), key)
}

// TestPauseKeepsOut: whoever waits for a pause gets the lock when that ends, in all modes, among
// several keys as well.
func TestPauseKeepsOut(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"alone": nil, "shared": {"-s"}, "slots": {"--slots", "2"}, "several": {"-k", "/keeps/other"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, key := etcdtest.Shared(t), "/keeps/"+name
			ctl(t, s, 0, "pause", key, "--reason", "move", "--for", "2h")
			l := programs.Locker(t, s.Endpoint(), append(append([]string{"-k", key}, args...), "echo", "ran")...)
			l.Says(l.Stderr, "paused by ")
			resume(t, s, key)
			if code := l.Code(); code != 0 || l.Stdout.String() != "ran\n" {
				t.Errorf("exit code %d, %q", code, l.Stderr)
			}
		})
	}
}

// TestPauseEndsByItself: after --for the next one gets the lock.
func TestPauseEndsByItself(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	ctl(t, s, 0, "pause", "/pause/ends", "--reason", "r", "--for", "2s")
	if l := programs.Locker(t, s.Endpoint(), "-k", "/pause/ends", "true"); l.Code() != 0 {
		t.Errorf("%q", l.Stderr)
	}
}

// TestPauseAndEtcdctl: a pause waits for etcdctl lock, and etcdctl lock for a pause. What tries
// behind etcdctl lock says so.
func TestPauseAndEtcdctl(t *testing.T) {
	t.Parallel()
	programs.BuildEtcdctl(t)
	s := etcdtest.Shared(t)
	const key = "/pause/etcdctl"
	etcdctlLock := func(args ...string) *programs.Run {
		return programs.StartCommand(t, nil, exec.Command(programs.Path("etcdctl"), append([]string{"--endpoints", s.Endpoint(), "lock", key}, args...)...))
	}
	first := etcdctlLock()
	first.Says(first.Stdout, key)
	l := programs.Locker(t, s.Endpoint(), "-k", key, "--try", "true")
	if code := l.Code(); code != 1 || !strings.Contains(l.Stderr.String(), `is held by "etcd (lease `) {
		t.Errorf("behind etcdctl lock: exit code %d, %q", code, l.Stderr)
	}
	p := programs.Start(t, nil, "etcdlockctl", "pause", key, "-e", s.Endpoint(), "--reason", "r")
	pauseOf(t, s.Client(t), key)
	second := etcdctlLock("echo", "ran")
	etcdtest.Await(t, "the place of etcdctl lock", func(ctx context.Context) error {
		if line, err := admin.Look(ctx, s.Client(t), key); err != nil || len(line.Waiters) != 2 {
			return fmt.Errorf("%+v, %v", line, err)
		}
		return nil
	})
	first.Signal(syscall.SIGINT)
	if code := p.Code(); code != 0 || second.Stdout.String() != "" {
		t.Errorf("pause: exit code %d, %q; etcdctl lock: %q", code, p.Stderr, second.Stdout)
	}
	resume(t, s, key)
	if code := second.Code(); code != 0 || !strings.Contains(second.Stdout.String(), "ran") {
		t.Errorf("etcdctl lock: exit code %d, %q, %q", code, second.Stdout, second.Stderr)
	}
}

// TestPauseIsInterrupted: a signal, or the end of --wait, leaves nothing, and the holder goes on.
// The one who waits behind it is told of the pause meanwhile.
func TestPauseIsInterrupted(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/pause/interrupted"
	holder := programs.Locker(t, s.Endpoint(), "-k", key, "-s", "sleep", "1000")
	held := func(ctx context.Context) error {
		if line, err := admin.Look(ctx, s.Client(t), key); err != nil || line.State != admin.Held || len(line.Waiters) != 0 {
			return errors.Join(fmt.Errorf("%+v", line), err)
		}
		return nil
	}
	etcdtest.Await(t, "the holder", held)
	p := ctl(t, s, 1, "pause", key, "--reason", "r", "--wait", "500ms")
	if !strings.Contains(p.Stderr.String(), `lock "`+key+`" was not paused within 500ms`) {
		t.Errorf("it says %q", p.Stderr)
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		p := programs.Start(t, nil, "etcdlockctl", "pause", key, "-e", s.Endpoint(), "--reason", "r")
		waits := pauseOf(t, s.Client(t), key)
		if l := programs.Locker(t, s.Endpoint(), "-k", key, "-s", "--try", "true"); l.Code() != 1 || !strings.Contains(l.Stderr.String(), "is not free: a pause by ") {
			t.Errorf("--try behind a pause that waits: %q", l.Stderr)
		}
		p.Signal(sig)
		if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "interrupted while it waited") {
			t.Errorf("%v: exit code %d, %q", sig, code, p.Stderr)
		}
		if programs.HasLease(t, s.Client(t), int64(waits.Lease)) {
			t.Errorf("%v: its lease is left", sig)
		}
	}
	if err := held(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	programs.CheckFree(t, s.Client(t), key)
}

// TestResumeOnATerminal: without a token the pause is shown, and the last part of the key is typed.
// No other pause is ended that has come meanwhile.
func TestResumeOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/resume/terminal"
	resumes := []string{"resume", key, "-e", s.Endpoint()}
	none := programs.CommandOnTerminal(t, 200, exec.Command(programs.Path("etcdlockctl"), resumes...))
	if code := none.Code(); code != 3 || !strings.Contains(none.Stdout.String(), `error: lock "/resume/terminal": nobody has paused it`) {
		t.Errorf("without a pause: exit code %d, %q", code, none.Stdout)
	}
	types := func(typed, says string, want int, meanwhile func()) {
		t.Helper()
		r := programs.CommandOnTerminal(t, 200, exec.Command(programs.Path("etcdlockctl"), resumes...))
		r.Shows("type terminal to end that: ")
		meanwhile()
		r.Types(typed)
		if code := r.Code(); code != want || !strings.Contains(r.Stdout.String(), `: "first" (token `) || !strings.Contains(r.Stdout.String(), says) {
			t.Errorf("%q: exit code %d, %q", typed, code, r.Stdout)
		}
	}
	ctl(t, s, 0, "pause", key, "--reason", "first")
	types("other\r", "nothing was done", 1, func() {})
	types("terminal\r", `"first"; nobody has the lock now`, 0, func() {})
	ctl(t, s, 0, "pause", key, "--reason", "first")
	types("terminal\r", "no pause has that token", 3, func() {
		resume(t, s, key)
		ctl(t, s, 0, "pause", key, "--reason", "second")
	})
}

// TestPauseIsRefused: what is wrong is said before etcd is asked.
func TestPauseIsRefused(t *testing.T) {
	t.Parallel()
	for says, args := range map[string][]string{
		"--reason: say why":   {"pause", "/x"},
		"--reason: 257 bytes": {"pause", "/x", "--reason", strings.Repeat("r", 257)},
		"--for: 1.5s is":      {"pause", "/x", "--reason", "r", "--for", "1.5s"},
		"--for: 0s is":        {"pause", "/x", "--reason", "r", "--for", "0s"},
		"--for: 745h0m0s is":  {"pause", "/x", "--reason", "r", "--for", "745h"},
		"--wait: 0s is":       {"pause", "/x", "--reason", "r", "--wait", "0s"},
		"pause takes one key": {"pause", "--reason", "r"},
		"resume takes one":    {"resume"},
		"the key":             {"pause", "/x~since", "--reason", "r"},
		"--token: 0 is":       {"resume", "/x", "--token", "0"},
		"--token: say which":  {"resume", "/x"},
		"--timeout: 0s":       {"pause", "/x", "--reason", "r", "--timeout", "0s"},
	} {
		p := programs.Start(t, []string{"ETCD_LOCK_HOST=localhost:1"}, "etcdlockctl", args...)
		if code := p.Code(); code != 64 || !strings.HasPrefix(p.Stderr.String(), "etcdlockctl: error: "+says) {
			t.Errorf("%q: exit code %d, %q", args, code, p.Stderr)
		}
	}
	p := programs.Start(t, []string{"ETCD_LOCK_HOST=localhost:1"}, "etcdlockctl", "pause", "/x", "--reason", "r", "--timeout", "300ms")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "did not answer within") {
		t.Errorf("without an etcd: exit code %d, %q", code, p.Stderr)
	}
}
