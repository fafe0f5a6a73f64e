//go:build linux

package steering

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/serverdir"
	"github.com/etcdlock/etcdlock/test/programs"
)

// fails runs a command of etcdlockctl that is to fail, and to say all of what is given.
func fails(t *testing.T, args []string, says ...string) {
	t.Helper()
	p := programs.Start(t, nil, "etcdlockctl", args...)
	if code := p.Code(); code != 1 {
		t.Errorf("%q: exit code %d", args, code)
	}
	for _, text := range append(says, "hint: ") {
		if !strings.Contains(p.Stderr.String(), text) {
			t.Errorf("%q: %s, not %q", args, p.Stderr, text)
		}
	}
	if strings.Contains(p.Stderr.String(), "desc =") {
		t.Errorf("%q: %s, as gRPC writes it", args, p.Stderr)
	}
}

// TestWhyNotReached: where there is no connection to etcd, the error says why, and the hint fits.
func TestWhyNotReached(t *testing.T) {
	t.Parallel()
	plain, s, mutual := etcdtest.Shared(t), etcdtest.Start(t, etcdtest.WithTLS()), etcdtest.Start(t, etcdtest.WithClientCerts())
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	https := []string{"-e", s.Endpoint()}
	const unknown, cacert = "x509: certificate signed by unknown authority", "hint: etcd's certificate is not accepted: --cacert names"
	for name, tt := range map[string]struct {
		command    []string
		args       []string
		says, hint string
	}{
		"wrong authority":     {[]string{"list"}, append(https, "--cacert", s.Certs().StrangeCA), unknown, cacert},
		"the same and a user": {[]string{"list"}, append(https, "--cacert", s.Certs().StrangeCA, "--user", "u:p"), unknown, cacert},
		"no authority":        {[]string{"show", "/x"}, https, unknown, cacert},
		"watch":               {[]string{"watch"}, https, unknown, cacert},
		"break":               {[]string{"break", "/x", "--token", "1", "--reason", "r"}, https, unknown, cacert},
		"pause":               {[]string{"pause", "/x", "--reason", "r"}, https, unknown, cacert},
		"no certificate":      {[]string{"list"}, []string{"-e", mutual.Endpoint(), "--cacert", mutual.Certs().CA}, "tls: certificate required", "hint: etcd wants another certificate"},
		"without TLS":         {[]string{"list"}, []string{"-e", strings.Replace(s.Endpoint(), "https", "http", 1)}, "error reading server preface", "hint: check that etcd runs"},
		"with TLS":            {[]string{"list"}, []string{"-e", strings.Replace(plain.Endpoint(), "http", "https", 1)}, "authentication handshake failed", "hint: check that etcd runs"},
		"not etcd":            {[]string{"list"}, []string{"-e", web.URL}, "frame too large", "hint: what answers there is not etcd's port"},
		"refused":             {[]string{"list"}, []string{"-e", "127.0.0.1:1"}, "connection refused", "hint: check that etcd runs"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fails(t, append(append(tt.command, tt.args...), "--timeout", "10"), tt.says, tt.hint)
		})
	}
}

// TestWhoAsks: the hint says what of the user, the password or the token is to be looked at.
func TestWhoAsks(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithTokens(time.Hour))
	s.AddUser(t, "worker", "right", "/mine")
	s.EnableAuth(t, "root-password")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	for hint, options := range map[string][][]string{
		"hint: check the user and the password": {{"--user", "worker:wrong"}, {"--user", "nobody:right"}},
		"hint: etcd wants a user: --user with":  {nil},
		"hint: check the token, of --auth-jwt":  {{"--auth-jwt-token-file", token}},
	} {
		for _, some := range options {
			fails(t, append([]string{"list", "/mine", "-e", s.Endpoint(), "--timeout", "1m"}, some...), hint)
		}
	}
}

// TestEmbeddedHints: what --embedded cannot find has a way out that can be typed, and a directory
// that somebody else could have written to is not used.
func TestEmbeddedHints(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "e t")
	fails(t, []string{"list", "--embedded=" + dir}, "no server runs",
		"hint: etcdlocker --embedded='"+dir+"' starts it when it wants a lock; etcdlockctl serve --dir='"+dir+"' starts it by itself")
	fails(t, []string{"list", "--embedded=~/x"}, "no server runs", "hint: the ~ stands for itself there")
	server := programs.Start(t, nil, "etcdlockctl", "serve", "--dir", dir)
	server.Says(server.Stdout, "answers")
	again := programs.Start(t, nil, "etcdlockctl", "serve", "--dir", dir)
	if code := again.Code(); code != serverdir.BusyExit || !strings.Contains(again.Stderr.String(), "hint: use that server, end it with etcdlockctl serve --stop --dir '"+dir+"', or") {
		t.Errorf("a second one: exit code %d, %s", code, again.Stderr)
	}
	ctlAt := func(args ...string) []string { return append(args, "--embedded="+dir) }
	if p := programs.Start(t, nil, "etcdlockctl", ctlAt("list")...); p.Code() != 0 {
		t.Errorf("list: %s", p.Stderr)
	}
	unusable := func(dir, why string) {
		t.Helper()
		const yours = "hint: name a directory that is yours alone"
		fails(t, []string{"list", "--embedded=" + dir}, why, yours)
		fails(t, []string{"serve", "--stop", "--dir", dir}, why, yours)
		fails(t, []string{"serve", "--dir", dir}, why, yours)
	}
	unusable("/etc/passwd", "not a directory")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	unusable(dir, "can be written by others")
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, programs.Nobody, programs.Nobody)); err != nil {
			t.Fatal(err)
		}
		unusable(dir, "belongs to another user")
	}
	if err := errors.Join(os.Chown(dir, os.Geteuid(), os.Getegid()), os.Chmod(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	server.Signal(syscall.SIGSTOP)
	stands := "hint: the server stands still or is slow: its process id is in the file lock"
	fails(t, ctlAt("list", "--timeout", "1"), "did not answer within 1s", stands)
	p := programs.Start(t, nil, "etcdlocker", ctlAt("-k", "/x", "--connect-timeout", "1")...)
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), stands) {
		t.Errorf("etcdlocker: exit code %d, %s", code, p.Stderr)
	}
	server.Signal(syscall.SIGCONT)
	if pid := strings.TrimSpace(etcdtest.Read(t, filepath.Join(dir, "lock"))); pid != strconv.Itoa(server.Cmd.Process.Pid) {
		t.Errorf("the file lock holds %q", pid)
	}
}
