package test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A terminal is a program that has a terminal to itself, as the leader of a session. What it shows is its stdout.
type terminal struct {
	*program
	tty *os.File
}

// onTerminal runs etcdlocker on a terminal that is so many columns wide.
func onTerminal(t testing.TB, columns uint16, endpoint string, args ...string) *terminal {
	t.Helper()
	p := &program{t: t, stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(programs, "etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	p.cmd.Env = environment("TERM=xterm")
	tty, err := pty.StartWithSize(p.cmd, &pty.Winsize{Rows: 24, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		io.Copy(p.stdout, tty) // ends with an error when the last process has closed the terminal
		close(read)
	}()
	go func() {
		<-read
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end()
		tty.Close()
	})
	return &terminal{p, tty}
}

// types sends what a keyboard would.
func (t *terminal) types(keys string) {
	t.t.Helper()
	if _, err := t.tty.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

const ctrlC = "\x03"

func TestWaitingLineOnATerminal(t *testing.T) {
	s := etcdtest.Shared(t)
	holder := locker(t, s.Endpoint(), "-k", "/line", "-i", "the-holder")
	held(t, s.Client(t), "/line")
	before := locker(t, s.Endpoint(), "-k", "/line", "true")
	before.says(before.stderr, "place 1 in line")

	waiter := onTerminal(t, 200, s.Endpoint(), "-k", "/line", "echo", "ran")
	waiter.says(waiter.stdout, `etcdlocker: waiting for lock "/line": held by "the-holder" since `)
	waiter.says(waiter.stdout, "place 2 in line")
	before.signal(syscall.SIGTERM)
	waiter.says(waiter.stdout, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if code := waiter.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	const erase = "\r\x1b[K"
	shown := waiter.stdout.String()
	if !strings.HasSuffix(shown, "in line"+erase+"ran\r\n") {
		t.Errorf("the line stays on the terminal: %q", shown)
	}
	if strings.Count(shown, "\n") != 1 {
		t.Errorf("the line is not one line: %q", shown)
	}
}

func TestWaitingLineOnANarrowTerminal(t *testing.T) {
	s := etcdtest.Shared(t)
	locker(t, s.Endpoint(), "-k", "/narrow", "-i", "the-holder")
	held(t, s.Client(t), "/narrow")
	const columns = 30
	waiter := onTerminal(t, columns, s.Endpoint(), "-k", "/narrow", "echo", "ran")
	waiter.says(waiter.stdout, "...")
	for _, line := range regexp.MustCompile(`\r|\n|\x1b\[K`).Split(waiter.stdout.String(), -1) {
		if utf8.RuneCountInString(line) >= columns {
			t.Errorf("%q does not fit into %d columns", line, columns)
		}
	}
	waiter.types(ctrlC)
	if code := waiter.code(); code != 130 || !strings.Contains(waiter.stdout.String(), "stopped by SIGINT while waiting") {
		t.Errorf("exit code %d, %q", code, waiter.stdout)
	}
	if got := places(t, s.Client(t), "/narrow"); got != 1 {
		t.Errorf("%d places in line, want the holder's alone", got)
	}
}

// TestCtrlCReachesTheCommandOnce: the terminal has sent it to the whole group already.
func TestCtrlCReachesTheCommandOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	p := onTerminal(t, 80, s.Endpoint(), "-k", "/ctrl-c", "--", "sh", "-c",
		`trap 'echo interrupted' INT; trap 'echo asked; exit 5' USR1; echo ready; while :; do sleep 0.01; done`)
	p.says(p.stdout, "ready")
	p.types(ctrlC)
	p.says(p.stdout, "interrupted")
	p.signal(syscall.SIGUSR1) // comes after whatever else etcdlocker has sent
	if code := p.code(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(p.stdout.String(), "interrupted"); n != 1 {
		t.Errorf("one Ctrl-C came %d times: %q", n, p.stdout)
	}
	free(t, s.Client(t), "/ctrl-c")
}

func TestTheCommandReadsFromTheTerminal(t *testing.T) {
	s := etcdtest.Shared(t)
	p := onTerminal(t, 80, s.Endpoint(), "-k", "/prompt", "--", "sh", "-c",
		`stty -echo; printf 'password: '; read -r word; stty echo; echo; [ -t 0 ] && [ -t 1 ] && echo "it is ${#word} long"`)
	p.says(p.stdout, "password: ")
	p.types("secret\r")
	if code := p.code(); code != 0 || !strings.Contains(p.stdout.String(), "it is 6 long") {
		t.Errorf("exit code %d, %q", code, p.stdout)
	}
	if strings.Contains(p.stdout.String(), "secret") {
		t.Error("the terminal showed what must not be shown")
	}
}
