package serverdir

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDefault(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	const below = ".local/state/etcdlock/etcd"
	tests := []struct{ state, home, want string }{
		{"/state", "/home/me", "/state/etcdlock/etcd"},
		{"", "/home/me", filepath.Join("/home/me", below)},
		{"relative", "/home/me", filepath.Join("/home/me", below)},
		{"", "", filepath.Join(me.HomeDir, below)}, // as in cron
	}
	for _, tt := range tests {
		t.Setenv("XDG_STATE_HOME", tt.state)
		t.Setenv("HOME", tt.home)
		if got, err := Default(); err != nil || got != tt.want {
			t.Errorf("XDG_STATE_HOME=%q HOME=%q: %q, %v; want %q", tt.state, tt.home, got, err, tt.want)
		}
	}
}

func TestOneOwner(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first := own(t, dir)
	if _, err := Take(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("a second owner: %v", err)
	}
	if err := first.Publish("unix:///x"); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(endpointPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the endpoint is still there: %v", err)
	}
	own(t, dir).Close()
}

// own has this process own a directory.
func own(t *testing.T, dir string) *Owner {
	t.Helper()
	lock, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Own(dir, lock)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// listen has this process listen as the server of a directory.
func listen(t *testing.T, o *Owner) (net.Listener, string) {
	t.Helper()
	socket, err := o.Socket()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Publish(Endpoint(socket)); err != nil {
		t.Fatal(err)
	}
	return l, Endpoint(socket)
}

// TestTakenForAnother: whoever starts a server hands the lock on to it, and keeps others out
// meanwhile.
func TestTakenForAnother(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	lock, err := Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := unix.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if _, err := Take(dir); !errors.Is(err, ErrBusy) {
		t.Errorf("while it is being handed on: %v", err)
	}
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Own(dir, other); err == nil {
		t.Error("it is owned with a file that nobody looks at")
	}
	o, err := Own(dir, os.NewFile(uintptr(inherited), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	own(t, dir).Close()
}

// TestTrimLog: the log is bounded while it is being written to, and what it has said last is kept.
func TestTrimLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	o := own(t, dir)
	defer o.Close()
	log, err := os.OpenFile(LogPath(dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	line := strings.Repeat("x", 32<<10) + "\n"
	for n := range 5 * maxLog / len(line) {
		fmt.Fprintf(log, "%d %s", n, line)
		if err := o.TrimLog(); err != nil {
			t.Fatal(err)
		}
		if info, err := log.Stat(); err != nil || info.Size() > maxLog {
			t.Fatalf("line %d: %d bytes, %v", n, info.Size(), err)
		}
	}
	old, err := os.ReadFile(LogPath(dir) + ".old")
	if err != nil || len(old) != maxLog || !strings.HasSuffix(string(old), line) {
		t.Errorf("%d bytes are kept of the log, %v", len(old), err)
	}
}

// TestStopWithoutAServer: the process id in the file of a dead server may be anybody's by now.
func TestStopWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(lockPath(dir), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Stop(t.Context(), dir); !errors.Is(err, ErrNoServer) {
		t.Errorf("Stop: %v", err)
	}
}

// awkward are names of directories that mean something in a list, in a URL or to a shell.
var awkward = []string{"a b", "a%20b", "a%b", "a%2Fb", "a?b", "a#b", "a,b", "ä", "a:b", "a@b", `a"b`, "a'b", `a\b`, "a\nb", "a\xffb", "a;b", "a&b=c+d"}

// TestEndpoint: a server is found in a directory of any name, and its endpoint can stand in a list.
func TestEndpoint(t *testing.T) {
	for _, name := range awkward {
		dir := filepath.Join(t.TempDir(), name)
		o := own(t, dir)
		socket := filepath.Join("/tmp", name, "etcd.sock")
		if got, ok := socketOf(Endpoint(socket)); !ok || got != socket {
			t.Errorf("%q: %q comes back as %q", socket, Endpoint(socket), got)
		}
		if endpoint := Endpoint(socket); strings.ContainsAny(endpoint, " ,?#@\"\n") || !strings.HasPrefix(endpoint, "unix:///tmp/") {
			t.Errorf("%q: %q cannot stand in a list", socket, endpoint)
		}
		l, endpoint := listen(t, o)
		if conn, got, err := dial(t.Context(), dir); err != nil || got != endpoint {
			t.Errorf("%q: found %q, %v", dir, got, err)
		} else {
			conn.Close()
		}
		l.Close()
		o.Close()
	}
}

// TestStopAsksThePeer: the server is who listens on the socket, whatever process id a file has.
func TestStopAsksThePeer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "etcd")
	o := own(t, dir)
	l, _ := listen(t, o)
	innocent := exec.Command("sleep", "1000")
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- innocent.Wait() }()
	defer innocent.Process.Kill()
	if err := os.WriteFile(lockPath(dir), fmt.Appendln(nil, innocent.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	defer signal.Stop(told)
	go func() {
		<-told
		l.Close()
		o.Close()
	}()
	if endpoint, err := Running(ctx, dir); err != nil || endpoint != Endpoint(l.Addr().String()) {
		t.Errorf("it runs at %q, %v", endpoint, err)
	}
	if err := Stop(ctx, dir); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		t.Errorf("a process that is not the server was ended: %v", err)
	default:
	}
	if err := Stop(ctx, dir); !errors.Is(err, ErrNoServer) {
		t.Errorf("a second time: %v", err)
	}
	if _, err := Running(ctx, dir); !errors.Is(err, ErrNoServer) {
		t.Errorf("it runs, with %v", err)
	}
}
