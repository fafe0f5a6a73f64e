//go:build linux

package steering

import (
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// watches runs etcdlockctl watch until it has begun.
func watches(t *testing.T, s *etcdtest.Server, args ...string) *programs.Run {
	t.Helper()
	p := programs.Start(t, nil, "etcdlockctl", append([]string{"watch", "-e", s.Endpoint()}, args...)...)
	p.Says(p.Stdout, "began")
	return p
}

// TestWatchCommand: each event is a line, in JSON where nobody sees it.
func TestWatchCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := watches(t, s, "/watch/a ")
	holder := programs.Locker(t, s.Endpoint(), "-v", "-k", "/watch/a b", "-i", "me", "--why", "month end", "sleep", "1000")
	p.Says(p.Stdout, `"event":"acquired"`)
	waiter := programs.Locker(t, s.Endpoint(), "-k", "/watch/a b", "-i", "other", "true")
	p.Says(p.Stdout, `"event":"joined"`)
	programs.Locker(t, s.Endpoint(), "-k", "/watch/elsewhere", "true").Code()
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	if code := waiter.Code(); code != 0 {
		t.Errorf("the waiter: exit code %d", code)
	}
	p.Says(p.Stdout, `"event":"released"`)
	type who struct{ Kind, ID, Why string }
	var events []string
	for line := range strings.Lines(p.Stdout.String()) {
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
	if p.Signal(syscall.SIGTERM); p.Code() == 0 || p.Stderr.String() != "" {
		t.Errorf("it ends with %d, %q", p.Code(), p.Stderr)
	}
}

// TestWatchPause: a pause shows as what it is.
func TestWatchPause(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := watches(t, s, "/watch/paused")
	ctl(t, s, 0, "pause", "/watch/paused", "--reason", "moving the data")
	resume(t, s, "/watch/paused")
	p.Says(p.Stdout, `"event":"resumed"`)
	var events []string
	for line := range strings.Lines(p.Stdout.String()) {
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
	p := programs.CommandOnTerminal(t, 300, exec.Command(programs.Path("etcdlockctl"), "watch", "-e", s.Endpoint(), "/watch/text"))
	p.Shows("  began     after revision ")
	holder := programs.Locker(t, s.Endpoint(), "-k", key, "-i", "me", "sleep", "1000")
	p.Shows(`  acquired  "/watch/text\x1b[2J"  me, pid `)
	waiter := programs.Locker(t, s.Endpoint(), "-k", key, "-s", "-i", "other", "sleep", "1000")
	p.Shows(`  joined    "/watch/text\x1b[2J"  other, pid `)
	p.Shows(`shared, place 1`)
	b := programs.Start(t, nil, "etcdlockctl", "break", key, "-e", s.Endpoint(), "--token", tokenOf(t, s, key), "--reason", "deploy\a4711")
	b.Code()
	p.Shows(`broken by `)
	p.Shows(`: "deploy\a4711"`)
	holder.Code()
	p.Shows(`  released  "/watch/text\x1b[2J"  me, pid `)
	p.Shows(`  acquired  "/watch/text\x1b[2J"  other, pid `)
	waiter.Signal(syscall.SIGTERM)
	waiter.Code()
	if text := p.Stdout.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\a") {
		t.Errorf("%q", text)
	}
}

// TestWatchEnds: after a number of events, and when whoever reads them has gone, also if nothing
// happens any more.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Start(t, nil, "etcdlockctl", "watch", "/watch/ends", "-e", s.Endpoint(), "--event", "released,lost", "--count", "2")
	pipe := programs.StartCommand(t, nil, exec.Command("sh", "-c", `"$@" | head -n 1`, "sh", programs.Path("etcdlockctl"), "watch", "/watch/nothing", "-e", s.Endpoint()))
	if code := pipe.Code(); code != 0 || strings.Count(pipe.Stdout.String(), "\n") != 1 || pipe.Stderr.String() != "" {
		t.Errorf("| head: exit code %d, %q, %q", code, pipe.Stdout, pipe.Stderr)
	}
	for running := true; running; {
		programs.Locker(t, s.Endpoint(), "-k", "/watch/ends", "true").Code()
		select {
		case <-p.Done:
			running = false
		default:
		}
	}
	if lines := p.Stdout.String(); p.Code() != 0 || strings.Count(lines, "\n") != 2 || strings.Count(lines, `"event":"released"`) != 2 {
		t.Errorf("--count: exit code %d, %q", p.Code(), lines)
	}
}

// TestWatchIsRefused: whoever may not read the prefix is told what that needs, and an etcd that
// does not answer is not waited for.
func TestWatchIsRefused(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	s.AddUser(t, "eye", "pass")
	s.EnableAuth(t, "secret")
	p := programs.Start(t, []string{"ETCDCTL_USER=eye", "ETCDCTL_PASSWORD=pass"}, "etcdlockctl", "watch", "/watch/", "-e", s.Endpoint())
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "permission denied") || !strings.Contains(p.Stderr.String(), "hint: the user needs to read") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	link := etcdtest.NewLink(t, s.Endpoint())
	link.Silence()
	p = programs.Start(t, nil, "etcdlockctl", "watch", "-e", link.Endpoint(), "--timeout", "500ms")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "did not answer within 500ms") || !strings.Contains(p.Stderr.String(), "hint: check that etcd runs") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}
