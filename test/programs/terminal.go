//go:build linux

package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A Terminal is a program that has a terminal to itself, as the leader of a session. What it shows
// is its stdout.
type Terminal struct {
	*Run
	tty  *os.File
	Seen int // bytes of what it shows that [Terminal.Shows] is done with
}

// OnTerminal runs etcdlocker on a terminal that is so many columns wide.
func OnTerminal(t testing.TB, columns uint16, endpoint string, args ...string) *Terminal {
	t.Helper()
	return CommandOnTerminal(t, columns, exec.Command(Path("etcdlocker"), append([]string{"-e", endpoint}, args...)...))
}

// CommandOnTerminal runs a command on such a terminal.
func CommandOnTerminal(t testing.TB, columns uint16, cmd *exec.Cmd) *Terminal {
	t.Helper()
	p := &Run{t: t, Cmd: cmd, Stdout: &Output{}, Stderr: &Output{}, Done: make(chan struct{})}
	p.Cmd.Env = Environment("TERM=xterm")
	tty, err := pty.StartWithSize(p.Cmd, &pty.Winsize{Rows: 24, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		io.Copy(p.Stdout, tty) // ends with an error when the last process has closed the terminal
		close(read)
	}()
	go func() {
		<-read
		p.Cmd.Wait()
		close(p.Done)
	}()
	t.Cleanup(func() {
		p.end()
		tty.Close()
	})
	return &Terminal{Run: p, tty: tty}
}

// Types sends what a keyboard would.
func (t *Terminal) Types(keys string) {
	t.t.Helper()
	if _, err := t.tty.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

// Shows waits until the terminal shows a text after the one that it has waited for before, and
// returns what is between.
func (t *Terminal) Shows(text string) (between string) {
	t.t.Helper()
	etcdtest.Await(t.t, fmt.Sprintf("%q", text), func(context.Context) error {
		shown := t.Stdout.String()[t.Seen:]
		i := strings.Index(shown, text)
		if i >= 0 {
			t.Seen += i + len(text)
			between = shown[:i]
			return nil
		}
		select {
		case <-t.Done:
			t.t.Fatalf("it ended without showing %q: %q", text, shown)
		default:
		}
		return fmt.Errorf("it shows %q", shown)
	})
	return between
}

// Between waits for a text and for one after it, and returns what is between.
func (t *Terminal) Between(from, to string) string {
	t.t.Helper()
	t.Shows(from)
	return t.Shows(to)
}

// Modes asks the shell how the terminal is set for the programs that it runs.
func (t *Terminal) Modes() string {
	t.t.Helper()
	t.Types("echo modes='<'$(stty -g)'>'\r")
	modes := t.Between("modes=<", ">")
	t.Shows("$ ")
	return modes
}

// Resizes changes the terminal's size.
func (t *Terminal) Resizes(rows, columns uint16) {
	t.t.Helper()
	if err := pty.Setsize(t.tty, &pty.Winsize{Rows: rows, Cols: columns}); err != nil {
		t.t.Fatal(err)
	}
}

// Ends ends a shell.
func (t *Terminal) Ends() {
	t.t.Helper()
	t.Types("exit\r")
	t.Code()
}

// Plain waits until the terminal is set as for plain programs, or until it is not: then it shows
// nothing of what is typed.
func (t *Terminal) Plain(want bool) {
	t.t.Helper()
	etcdtest.Await(t.t, fmt.Sprintf("a plain terminal: %v", want), func(context.Context) error {
		if flags := localFlags(t.t, t.tty); flags&unix.ECHO != 0 != want {
			return fmt.Errorf("%#x", flags)
		}
		return nil
	})
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
