package serverdir

import (
	"errors"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
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
	first, err := Own(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Own(dir); !errors.Is(err, ErrBusy) {
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
	second, err := Own(dir)
	if err != nil {
		t.Fatalf("after the first has left: %v", err)
	}
	second.Close()
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
		o, err := Own(dir)
		if err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join("/tmp", name, "etcd.sock")
		if got, ok := socketOf(Endpoint(socket)); !ok || got != socket {
			t.Errorf("%q: %q comes back as %q", socket, Endpoint(socket), got)
		}
		if endpoint := Endpoint(socket); strings.ContainsAny(endpoint, " ,?#@\"\n") || !strings.HasPrefix(endpoint, "unix:///tmp/") {
			t.Errorf("%q: %q cannot stand in a list", socket, endpoint)
		}
		if socket, err = o.Socket(); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Publish(Endpoint(socket)); err != nil {
			t.Fatal(err)
		}
		if got, ok := lookUp(t.Context(), dir); !ok || got != Endpoint(socket) {
			t.Errorf("%q: found %q, %v", dir, got, ok)
		}
		l.Close()
		o.Close()
	}
}
