package pulse

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// FuzzNotification: a datagram says what its lines say, wherever they stand, and nothing else.
func FuzzNotification(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=Ready to serve\nWATCHDOG=1"))
	f.Add([]byte("WATCHDOG=trigger\n"))
	f.Add([]byte("WATCHDOG=10\nXREADY=1\nSTATUS=\n\n=\nSTOPPING=1"))
	f.Add([]byte("READY=1\r\nWATCHDOG=1\r\n\x00"))
	f.Add([]byte("WATCHDOG=1\x00\x00"))
	f.Add([]byte{0, '\n', 0xff})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		got := parseNotification(datagram)
		text := "\n" + strings.ReplaceAll(strings.TrimSuffix(string(datagram), "\x00"), "\r", "\n") + "\n"
		if strings.Contains(text, "\x00") {
			text = ""
		}
		says := func(line string) bool { return strings.Contains(text, "\n"+line+"\n") }
		for line, is := range map[string]bool{"READY=1": got.ready, "WATCHDOG=1": got.watchdog, "WATCHDOG=trigger": got.trigger, "STOPPING=1": got.stopping} {
			if is != says(line) {
				t.Errorf("%s: %v", line, is)
			}
		}
		if status := strings.Contains(text, "\nSTATUS="); status != (got.status != nil) || bytes.ContainsAny(got.status, "\r\n\x00") {
			t.Errorf("status %q", got.status)
		}
	})
}

func newTestNotify(t *testing.T, dir string) *Notify {
	t.Helper()
	n, err := NewNotify(dir, Limits{First: time.Minute, Next: time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n.Begin()
	t.Cleanup(n.Close)
	return n
}

func send(t *testing.T, n *Notify, text string) {
	t.Helper()
	env, _ := n.Given()
	name, _ := strings.CutPrefix(env[0], "NOTIFY_SOCKET=")
	conn, err := net.Dial("unixgram", name)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// TestNotifications: which are signs, and which are trouble.
func TestNotifications(t *testing.T) {
	for _, dir := range []string{t.TempDir(), ""} {
		n := newTestNotify(t, dir)
		if env, _ := n.Given(); strings.Contains(env[0], "@") != (dir == "") || env[1] != "WATCHDOG_USEC=1000000" {
			t.Errorf("%q", env)
		}
		send(t, n, "STATUS=starting\nMAINPID=1")
		send(t, n, strings.Repeat("x", maxDatagram)+"\nWATCHDOG=1") // too long to be read
		send(t, n, "READY=1")
		if news := <-n.Heard(); news != (News{}) {
			t.Errorf("ready: %+v", news)
		}
		send(t, n, "READY=1") // says nothing new
		send(t, n, "FDSTORE=1\nWATCHDOG=1")
		send(t, n, "STOPPING=1")
		send(t, n, "STOPPING=1")
		send(t, n, "WATCHDOG=trigger")
		if news := <-n.Heard(); news != (News{}) {
			t.Errorf("alive: %+v", news)
		}
		if news := <-n.Heard(); news != (News{Within: time.Minute}) {
			t.Errorf("stopping: %+v", news)
		}
		if news := <-n.Heard(); news.Trouble == nil {
			t.Errorf("trigger: %+v", news)
		}
	}
}

// TestLineEnds: a sign counts however its line ends, and not beside a NUL.
func TestLineEnds(t *testing.T) {
	for text, counts := range map[string]bool{
		"WATCHDOG=1\x00":                    true,
		"WATCHDOG=1\r\n":                    true,
		"WATCHDOG=1\r":                      true,
		"WATCHDOG=1\n\x00":                  true,
		"STATUS=busy\r\nWATCHDOG=1\r\n\x00": true,
		"WATCHDOG=1\x00\x00":                false,
		"WATCHDOG=1\x00\n":                  false,
		"STATUS=a\x00b\nWATCHDOG=1":         false,
		"WATCHDOG=1 ":                       false,
	} {
		n := newTestNotify(t, t.TempDir())
		send(t, n, text)
		send(t, n, "WATCHDOG=trigger") // comes after it
		if news := <-n.Heard(); (news == News{}) != counts {
			t.Errorf("%q: %+v", text, news)
		}
	}
}

// TestSocketsOfTheDead are removed, those of the living are not, and nothing is left of one that is
// closed.
func TestSocketsOfTheDead(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	dead, living := filepath.Join(dir, notifyPrefix+"1-1"), filepath.Join(dir, notifyPrefix+"2-2")
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dead}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // and the name stays
	tooYoung := filepath.Join(dir, notifyPrefix+"3-3")
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: tooYoung})
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	other, err := listen(living)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	old := time.Now().Add(-2 * young)
	if err := errors.Join(os.Chtimes(dead, old, old), os.Chtimes(living, old, old)); err != nil {
		t.Fatal(err)
	}
	s, err := newNotifySocket(dir)
	if err != nil {
		t.Fatal(err)
	}
	exists := func(name string) bool {
		_, err := os.Lstat(name)
		return !errors.Is(err, os.ErrNotExist)
	}
	if exists(dead) || !exists(living) || !exists(tooYoung) || !exists(s.name) {
		t.Errorf("dead %v, living %v, too young %v, own %v", exists(dead), exists(living), exists(tooYoung), exists(s.name))
	}
	s.close()
	if exists(s.name) {
		t.Error("its own is left")
	}
}

// TestSystemdsBarrier: systemd-notify sends a descriptor and waits until nobody has it any more.
func TestSystemdsBarrier(t *testing.T) {
	n := newTestNotify(t, t.TempDir())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	env, _ := n.Given()
	name, _ := strings.CutPrefix(env[0], "NOTIFY_SOCKET=")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), &unix.SockaddrUnix{Name: name}, 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	r.Read(make([]byte, 1)) // returns when the last one is closed
}
