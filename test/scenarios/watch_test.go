//go:build linux

package scenarios

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// watches runs etcdlockctl watch until it has begun.
func watches(t *testing.T, s *etcdtest.Server, args ...string) *program {
	t.Helper()
	p := start(t, nil, "etcdlockctl", append([]string{"watch", "-e", s.Endpoint()}, args...)...)
	p.says(p.stdout, "began")
	return p
}

// TestWatchCommand: each event is a line, in JSON where nobody sees it.
func TestWatchCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := watches(t, s, "/watch/a ")
	holder := locker(t, s.Endpoint(), "-v", "-k", "/watch/a b", "-i", "me", "--why", "month end", "sleep", "1000")
	p.says(p.stdout, `"event":"acquired"`)
	waiter := locker(t, s.Endpoint(), "-k", "/watch/a b", "-i", "other", "true")
	p.says(p.stdout, `"event":"joined"`)
	locker(t, s.Endpoint(), "-k", "/watch/elsewhere", "true").code()
	holder.signal(syscall.SIGTERM)
	holder.code()
	if code := waiter.code(); code != 0 {
		t.Errorf("the waiter: exit code %d", code)
	}
	p.says(p.stdout, `"event":"released"`)
	type who struct{ Kind, ID, Why string }
	var events []string
	for line := range strings.Lines(p.stdout.String()) {
		var e struct {
			Time, Event, Key     string
			Revision, Token      int64
			Holder, From, Waiter who
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Revision == 0 || !strings.HasSuffix(e.Time, "Z") || e.Event != "began" && e.Key != "/watch/a b" {
			t.Errorf("%s: %v", line, err)
		}
		if e.Event == "acquired" && (e.Holder != who{"etcdlocker", "me", "month end"} || e.Token != e.Revision) {
			t.Errorf("%s", line)
		}
		events = append(events, e.Event+" "+e.From.ID+e.Holder.ID+e.Waiter.ID)
	}
	if got := strings.Join(events, ", "); got != "began , acquired me, joined other, passed meother, released other" {
		t.Error(got)
	}
	if p.signal(syscall.SIGTERM); p.code() == 0 || p.stderr.String() != "" {
		t.Errorf("it ends with %d, %q", p.code(), p.stderr)
	}
}

// TestWatchPause: a pause shows as what it is.
func TestWatchPause(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := watches(t, s, "/watch/paused")
	ctl(t, s, 0, "pause", "/watch/paused", "--reason", "moving the data")
	resume(t, s, "/watch/paused")
	p.says(p.stdout, `"event":"resumed"`)
	var events []string
	for line := range strings.Lines(p.stdout.String()) {
		var e struct{ Event string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Event != "began" && !strings.Contains(line, `"reason":"moving the data"`) {
			t.Errorf("%s: %v", line, err)
		}
		events = append(events, e.Event)
	}
	if got := strings.Join(events, " "); got != "began paused resumed" {
		t.Error(got)
	}
}

// TestWatchInText: on a terminal events are text, and what others have written cannot write there.
func TestWatchInText(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/watch/text\x1b[2J"
	p := commandOnTerminal(t, 300, exec.Command(filepath.Join(programs, "etcdlockctl"), "watch", "-e", s.Endpoint(), "/watch/text"))
	p.shows("  began     after revision ")
	holder := locker(t, s.Endpoint(), "-k", key, "-i", "me", "sleep", "1000")
	p.shows(`  acquired  "/watch/text\x1b[2J"  me, pid `)
	waiter := locker(t, s.Endpoint(), "-k", key, "-s", "-i", "other", "sleep", "1000")
	p.shows(`  joined    "/watch/text\x1b[2J"  other, pid `)
	p.shows(`shared, place 1`)
	b := start(t, nil, "etcdlockctl", "break", key, "-e", s.Endpoint(), "--token", tokenOf(t, s, key), "--reason", "deploy\a4711")
	b.code()
	p.shows(`broken by `)
	p.shows(`: "deploy\a4711"`)
	holder.code()
	p.shows(`  released  "/watch/text\x1b[2J"  me, pid `)
	p.shows(`  acquired  "/watch/text\x1b[2J"  other, pid `)
	waiter.signal(syscall.SIGTERM)
	waiter.code()
	if text := p.stdout.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\a") {
		t.Errorf("%q", text)
	}
}

// TestWatchEnds: after a number of events, and when whoever reads them has gone, also if nothing
// happens any more.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := start(t, nil, "etcdlockctl", "watch", "/watch/ends", "-e", s.Endpoint(), "--event", "released,lost", "--count", "2")
	pipe := startCommand(t, nil, exec.Command("sh", "-c", `"$@" | head -n 1`, "sh", filepath.Join(programs, "etcdlockctl"), "watch", "/watch/nothing", "-e", s.Endpoint()))
	if code := pipe.code(); code != 0 || strings.Count(pipe.stdout.String(), "\n") != 1 || pipe.stderr.String() != "" {
		t.Errorf("| head: exit code %d, %q, %q", code, pipe.stdout, pipe.stderr)
	}
	for running := true; running; {
		locker(t, s.Endpoint(), "-k", "/watch/ends", "true").code()
		select {
		case <-p.done:
			running = false
		default:
		}
	}
	if lines := p.stdout.String(); p.code() != 0 || strings.Count(lines, "\n") != 2 || strings.Count(lines, `"event":"released"`) != 2 {
		t.Errorf("--count: exit code %d, %q", p.code(), lines)
	}
}

// TestWatchIsRefused: whoever may not read the prefix is told what that needs, and an etcd that
// does not answer is not waited for.
func TestWatchIsRefused(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	s.AddUser(t, "eye", "pass")
	s.EnableAuth(t, "secret")
	p := start(t, []string{"ETCDCTL_USER=eye", "ETCDCTL_PASSWORD=pass"}, "etcdlockctl", "watch", "/watch/", "-e", s.Endpoint())
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "permission denied") || !strings.Contains(p.stderr.String(), "hint: the user needs to read") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	link := etcdtest.NewLink(t, s.Endpoint())
	link.Silence()
	p = start(t, nil, "etcdlockctl", "watch", "-e", link.Endpoint(), "--timeout", "500ms")
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "did not answer within 500ms") || !strings.Contains(p.stderr.String(), "hint: check that etcd runs") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}
