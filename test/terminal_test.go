//go:build linux

package test

import (
	"context"
	"errors"
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
	"golang.org/x/sys/unix"

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
	return commandOnTerminal(t, columns, exec.Command(filepath.Join(programs, "etcdlocker"), append([]string{"-e", endpoint}, args...)...))
}

// shell runs a shell with job control on a terminal. It finds etcdlocker, and the server, in its environment.
func shell(t testing.TB, endpoint string) *terminal {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		missing(t, "bash, which has job control")
	}
	cmd := exec.Command("env", "PATH="+programs+":"+os.Getenv("PATH"), "ETCD_LOCK_HOST="+endpoint, "PS1=$ ", bash, "--norc", "--noprofile", "-i")
	p := commandOnTerminal(t, 200, cmd)
	p.says(p.stdout, "$ ")
	return p
}

func commandOnTerminal(t testing.TB, columns uint16, cmd *exec.Cmd) *terminal {
	t.Helper()
	p := &program{t: t, cmd: cmd, stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
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

const (
	ctrlC = "\x03"
	ctrlZ = "\x1a"
)

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

// TestCtrlZ: command and renewing stop, the prompt comes back, and fg in time goes on as if nothing had been.
func TestCtrlZ(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -t 60 -k /ctrl-z -- sh -c 'echo rea''dy; read -r x; echo got $x; exit 7'\r")
	sh.says(sh.stdout, "ready")
	sh.types(ctrlZ)
	sh.says(sh.stdout, "Stopped")
	sh.types("echo the pro''mpt\r")
	sh.says(sh.stdout, "the prompt")
	held(t, s.Client(t), "/ctrl-z")
	sh.types("fg; echo co''de $?\r")
	etcdtest.Await(t, "the command to go on", func(context.Context) error {
		sh.types(":\r") // fg throws away what was typed before it is done
		if !strings.Contains(sh.stdout.String(), "got :") {
			return errors.New(sh.stdout.String())
		}
		return nil
	})
	sh.says(sh.stdout, "code 7")
	free(t, s.Client(t), "/ctrl-z")
	sh.types("exit\r")
	sh.code()
}

// TestCtrlZTooLong: the command is dead before the lock can go to somebody else, and fg says that it was lost.
func TestCtrlZTooLong(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	sh := shell(t, s.Endpoint())
	sh.types("etcdlocker -t 2 -k /too-long -- sh -c 'echo rea''dy; read -r x'\r")
	sh.says(sh.stdout, "ready")
	lease := held(t, client, "/too-long").Kvs[0].Lease
	sh.types(ctrlZ)
	sh.says(sh.stdout, "Stopped")
	treeGone(t, "/too-long")
	if !hasLease(t, client, lease) {
		t.Error("the lease had run out before the command was dead")
	}
	sh.types("fg; echo co''de $?\r")
	sh.says(sh.stdout, "code 2")
	sh.types("exit\r")
	sh.code()
}

// TestPipelineOnATerminal: in a pipeline the command still has the terminal, as a pager or a password prompt needs it.
func TestPipelineOnATerminal(t *testing.T) {
	s := etcdtest.Shared(t)
	sh := shell(t, s.Endpoint())
	sh.types("echo fed | etcdlocker -k /pipe -- sh -c 'cat; printf \"na''me: \" > /dev/tty; read -r x < /dev/tty; echo got $x' | sed 's/^/out: /'\r")
	sh.says(sh.stdout, "name: ")
	sh.types("it\r")
	sh.says(sh.stdout, "out: fed")
	sh.says(sh.stdout, "out: got it")
	sh.types("echo inner | etcdlocker -k /pipe -- sh -c 'echo rea''dy; exec sleep 1000' | cat\r")
	sh.says(sh.stdout, "ready")
	sh.types(ctrlC)
	sh.says(sh.stdout, "stopped by SIGINT")
	sh.types("exit\r")
	sh.code()
	free(t, s.Client(t), "/pipe")
}

// TestTerminalIsRestored: a command that is killed cannot undo what it did to the terminal.
func TestTerminalIsRestored(t *testing.T) {
	s := etcdtest.Shared(t)
	p := onTerminal(t, 80, s.Endpoint(), "-k", "/raw", "--grace", "0.1", "--", "sh", "-c",
		`trap '' TERM; stty raw -echo; echo ready; while :; do sleep 0.01; done`)
	p.says(p.stdout, "ready")
	if flags := localFlags(t, p.tty); flags&(unix.ECHO|unix.ICANON) != 0 {
		t.Fatalf("the command has not set the terminal: %#x", flags)
	}
	if _, err := s.Client(t).Delete(etcdtest.Context(t), "/raw"); err != nil {
		t.Fatal(err)
	}
	if code := p.code(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	if flags := localFlags(t, p.tty); flags&unix.ECHO == 0 || flags&unix.ICANON == 0 {
		t.Errorf("the terminal stays as the command had set it: %#x", flags)
	}
}

func localFlags(t testing.TB, tty *os.File) uint32 {
	t.Helper()
	conn, err := tty.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var flags *unix.Termios
	if err := errors.Join(conn.Control(func(fd uintptr) { flags, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }), err); err != nil {
		t.Fatal(err)
	}
	return flags.Lflag
}
