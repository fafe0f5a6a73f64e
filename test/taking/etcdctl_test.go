//go:build linux

package taking

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// A setting is a variable by which etcdctl's users say how to use etcd.
type setting struct {
	vars []string
	args []string
	code int
	says string // on stderr, if the code is not 0
}

// servers are what these tests need.
type servers struct {
	plain, users, mutual *etcdtest.Server
	token                string
}

func newServers(t *testing.T) *servers {
	t.Helper()
	s := &servers{
		plain:  etcdtest.Shared(t),
		users:  etcdtest.Start(t, etcdtest.WithTokens(time.Hour)),
		mutual: etcdtest.Start(t, etcdtest.WithClientCerts()),
	}
	s.users.AddUser(t, "worker", "of-worker", "/setting")
	s.users.EnableAuth(t, "of-root")
	s.token = s.users.Token(t, "worker", "of-worker")
	return s
}

// at is a variable with the endpoint of a server.
func at(s *etcdtest.Server) string { return "ETCDCTL_ENDPOINTS=" + s.Endpoint() }

// bare is the same without a scheme, as etcdctl's users write it.
func bare(s *etcdtest.Server) string {
	_, address, _ := strings.Cut(s.Endpoint(), "://")
	return "ETCDCTL_ENDPOINTS=" + address
}

// settings are what is done with each global option of etcdctl 3.7. The options that find etcd by
// DNS have tests in internal/endpoint, and so have the times.
func (s *servers) settings() map[string][]setting {
	certs := s.mutual.Certs()
	cert, key, ca := "ETCDCTL_CERT="+certs.Cert, "ETCDCTL_KEY="+certs.Key, "ETCDCTL_CACERT="+certs.CA
	worker := "ETCDCTL_USER=worker"
	return map[string][]setting{
		"auth-jwt-token": {
			{vars: []string{at(s.users), "ETCDCTL_AUTH_JWT_TOKEN=" + s.token}},
			{vars: []string{at(s.users), "ETCDCTL_AUTH_JWT_TOKEN=" + s.token, worker, "ETCDCTL_PASSWORD=wrong"}},
			{vars: []string{at(s.users), "ETCDCTL_AUTH_JWT_TOKEN=" + s.token}, args: []string{"--user", "worker:wrong"}, code: 1, says: "authentication failed"},
			{vars: []string{at(s.users), "ETCDCTL_AUTH_JWT_TOKEN=a.secret.c"}, code: 1, says: "hint: check the token"},
			{vars: []string{at(s.users), "ETCDCTL_AUTH_JWT_TOKEN=a secret"}, code: 64, says: "ETCDCTL_AUTH_JWT_TOKEN: "},
		},
		"cacert": {
			{vars: []string{bare(s.mutual), cert, key, ca}},
			{vars: []string{bare(s.mutual), cert, key}, args: []string{"--connect-timeout", "5"}, code: 1, says: "certificate"},
		},
		"cert":            {{vars: []string{bare(s.mutual), key, ca}, code: 64, says: "ETCDCTL_KEY: a key without its certificate"}},
		"command-timeout": {{vars: []string{at(s.plain), "ETCDCTL_COMMAND_TIMEOUT=1ns"}}},
		"debug":           {{vars: []string{at(s.plain), "ETCDCTL_DEBUG=true", "ETCDCTL_PASSWORD=secret"}}},
		"dial-timeout": {
			{vars: []string{at(s.plain), "ETCDCTL_DIAL_TIMEOUT=1ns"}},
			{vars: []string{at(s.plain), "ETCDCTL_DIAL_TIMEOUT=0"}},
			{vars: []string{at(s.plain), "ETCDCTL_DIAL_TIMEOUT=soon"}, code: 64, says: `ETCDCTL_DIAL_TIMEOUT: "soon" is not a time`},
		},
		"endpoints": {{vars: []string{bare(s.plain)}}, {vars: []string{"ETCDCTL_ENDPOINTS= , " + s.plain.Endpoint() + ","}}},
		"hex":       {{vars: []string{at(s.plain), "ETCDCTL_HEX=true"}}},
		"insecure-skip-tls-verify": {
			{vars: []string{bare(s.mutual), cert, key, "ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true"}},
			{vars: []string{at(s.plain), "ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true"}, code: 64, says: "it asks for TLS"},
		},
		"insecure-transport": {
			{vars: []string{at(s.plain), "ETCDCTL_INSECURE_TRANSPORT=true"}},
			{vars: []string{bare(s.plain), "ETCDCTL_INSECURE_TRANSPORT=true"}},
			{vars: []string{at(s.plain), ca, "ETCDCTL_INSECURE_TRANSPORT=true"}},
			// With TLS.
			{vars: []string{bare(s.mutual), cert, key, ca, "ETCDCTL_INSECURE_TRANSPORT=true"}},
			{vars: []string{bare(s.mutual), cert, key, "SSL_CERT_FILE=" + certs.CA, "ETCDCTL_INSECURE_TRANSPORT=false"}},
			{vars: []string{at(s.plain), "ETCDCTL_INSECURE_TRANSPORT=false"}, code: 64, says: "it asks for TLS"},
			{vars: []string{bare(s.plain), "ETCDCTL_INSECURE_TRANSPORT=false"}, args: []string{"--connect-timeout", "1"}, code: 1, says: "did not answer"},
		},
		"keepalive-time": {
			{vars: []string{at(s.plain), "ETCDCTL_KEEPALIVE_TIME=1h"}},
			{vars: []string{at(s.plain), "ETCDCTL_KEEPALIVE_TIME=often"}, code: 64, says: `ETCDCTL_KEEPALIVE_TIME: "often" is not a time`},
			{vars: []string{at(s.plain)}, args: []string{"--keepalive-time="}, code: 64, says: "--keepalive-time: "},
		},
		"keepalive-timeout": {
			{vars: []string{at(s.plain), "ETCDCTL_KEEPALIVE_TIMEOUT=1m"}},
			{vars: []string{at(s.plain)}, args: []string{"--keepalive-timeout", "-1"}, code: 64, says: `--keepalive-timeout: "-1" is negative`},
		},
		"key":               {{vars: []string{bare(s.mutual), cert, ca}, code: 64, says: "ETCDCTL_CERT: a certificate without its key"}},
		"max-recv-bytes":    {{vars: []string{at(s.plain), "ETCDCTL_MAX_RECV_BYTES=1"}}},
		"max-request-bytes": {{vars: []string{at(s.plain), "ETCDCTL_MAX_REQUEST_BYTES=1"}}},
		"password": {
			{vars: []string{at(s.users), worker, "ETCDCTL_PASSWORD=of-worker"}},
			{vars: []string{at(s.users), worker, "ETCDCTL_PASSWORD=wrong"}, code: 1, says: "check the user and the password"},
		},
		"user": {
			{vars: []string{at(s.users), worker + ":of-worker"}},
			{vars: []string{at(s.users), worker}, code: 64, says: "ETCDCTL_USER: there is no password"},
		},
		"write-out": {{vars: []string{at(s.plain), "ETCDCTL_WRITE_OUT=json"}}},
	}
}

// TestSettingsOfEtcdctl: where etcdctl works, etcdlocker works, with the differences that
// docs/etcdctl.md has.
func TestSettingsOfEtcdctl(t *testing.T) {
	t.Parallel()
	s := newServers(t)
	for option, settings := range s.settings() {
		t.Run(option, func(t *testing.T) {
			for _, set := range settings {
				p := programs.Start(t, set.vars, "etcdlocker", append(set.args, "-k", "/setting", "--", "echo", "ran")...)
				code, stderr := p.Code(), p.Said()
				if code != set.code || (p.Stdout.String() == "ran\n") != (code == 0) {
					t.Errorf("%q %q: exit code %d, %q %q", set.vars, set.args, code, p.Stdout, stderr)
				}
				if !strings.Contains(stderr, set.says) || (stderr == "") != (code == 0) || strings.Contains(stderr, "secret") {
					t.Errorf("%q %q: it says %q", set.vars, set.args, stderr)
				}
			}
		})
	}
}

// TestOptionsOfEtcdctlAreListed: docs/etcdctl.md has a line for each of the global options, and
// each has a test.
func TestOptionsOfEtcdctlAreListed(t *testing.T) {
	text, err := os.ReadFile("../../docs/etcdctl.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := (&servers{plain: etcdtest.Shared(t), users: etcdtest.Shared(t), mutual: etcdtest.Start(t, etcdtest.WithTLS())}).settings()
	for _, dns := range []string{"discovery-srv", "discovery-srv-name", "insecure-discovery"} {
		tested[dns] = nil
	}
	rows := regexp.MustCompile("(?m)^\\| `--([a-z-]+)`[^|]*\\| (same|different) \\|").FindAllStringSubmatch(string(text), -1)
	for _, row := range rows {
		if _, ok := tested[row[1]]; !ok {
			t.Errorf("--%s has no test, or two lines", row[1])
		}
		delete(tested, row[1])
	}
	if len(tested) > 0 || len(rows) != 21 {
		t.Errorf("%d lines, missing: %v", len(rows), tested)
	}
}

// TestOutputIsNotEtcdctls: without a command there is one line on stdout, however etcdctl would
// write.
func TestOutputIsNotEtcdctls(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/output"
	p := programs.Start(t, []string{at(s), "ETCDCTL_WRITE_OUT=json", "ETCDCTL_HEX=true"}, "etcdlocker", "-k", key)
	p.Says(p.Stdout, fmt.Sprintf("%s %d\n", key, programs.AwaitHeld(t, s.Client(t), key).Kvs[0].ModRevision))
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// TestDialTimeout: etcdctl's limit makes ours longer.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp4", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	vars := []string{"ETCDCTL_DIAL_TIMEOUT=5.5s", "ETCDCTL_ENDPOINTS=" + mute.Addr().String()}
	for limit, args := range map[string][]string{"5.5s": nil, "1s": {"--connect-timeout", "1s"}} {
		p := programs.Start(t, vars, "etcdlocker", append(args, "-k", "/x", "true")...)
		if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "did not answer within "+limit) {
			t.Errorf("exit code %d, %q, want a limit of %s", code, p.Stderr, limit)
		}
	}
}

// TestTokenFile: a token may come from a file, and with nothing beside it.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	s := newServers(t)
	file := t.TempDir() + "/token"
	if err := os.WriteFile(file, []byte(s.token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 0, ""},
		{[]string{"--user", "worker:of-worker"}, 64, "--auth-jwt-token-file: there is also a user or a password"},
		{[]string{"--auth-jwt-token-file", os.DevNull}, 64, "--auth-jwt-token-file: "},
		{[]string{"--auth-jwt-token-file", ""}, 64, "--auth-jwt-token-file: it is empty"},
		{[]string{"--auth-jwt-token-file", file + "2"}, 64, "--auth-jwt-token-file: "},
	} {
		args := append([]string{"--auth-jwt-token-file", file}, tt.args...)
		p := programs.Start(t, []string{at(s.users), "ETCDCTL_USER=worker:wrong"}, "etcdlocker", append(args, "-k", "/setting", "true")...)
		if code := p.Code(); code != tt.code || !strings.Contains(p.Stderr.String(), tt.says) {
			t.Errorf("%q: exit code %d, %q", tt.args, code, p.Stderr)
		}
	}
	programs.CheckFree(t, s.users.Client(t), "/setting")
}

// TestTokenExpires: a lock is held for longer than tokens last if somebody writes new ones into the
// file, and lost if nobody does.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	const expiry = 5 * time.Second
	s := etcdtest.Start(t, etcdtest.WithTokens(expiry))
	s.AddUser(t, "worker", "of-worker", "/expires", "/expired")
	s.EnableAuth(t, "of-root")
	file := t.TempDir() + "/token"
	renew := func() {
		if err := os.WriteFile(file+"2", []byte(s.Token(t, "worker", "of-worker")), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"2", file); err != nil {
			t.Fatal(err)
		}
	}
	renew()
	lost := programs.Start(t, []string{at(s), "ETCDCTL_AUTH_JWT_TOKEN=" + s.Token(t, "worker", "of-worker")}, "etcdlocker", "-t", "5", "-k", "/expired", "sleep", "1000")
	began := time.Now()
	p := programs.Locker(t, s.Endpoint(), "-v", "-t", "20", "-r", "0.2", "--auth-jwt-token-file", file, "-k", "/expires", "sleep", "1000")
	for time.Since(began) < 2*expiry {
		p.Renews(1)
		renew()
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	if code := lost.Code(); code != 2 || !strings.Contains(lost.Stderr.String(), "--auth-jwt-token-file") {
		t.Errorf("exit code %d, %q", code, lost.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/expires")
}

// TestZone: an IPv6 address may have a zone, in each of the forms in which people write it, and the
// command finds one that can be read again.
func TestZone(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	there, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		etcdtest.Missing(t, "IPv6")
	}
	defer there.Close()
	go forward(there, strings.TrimPrefix(s.Endpoint(), "http://"))
	_, port, _ := net.SplitHostPort(there.Addr().String())
	for _, form := range []string{"[::1%lo]:", "[::1%25lo]:", "http://[::1%25lo]:", "http://[::1%lo]:"} {
		for _, vars := range [][]string{{"ETCDCTL_ENDPOINTS=" + form + port}, {"ETCD_LOCK_HOST=" + form + port}} {
			p := programs.Start(t, vars, "etcdlocker", "-k", "/zone", "--", programs.Path("etcdlocker"), "-k", "/zone/2", "sh", "-c", "echo $ETCDLOCK_HELD_ENDPOINTS")
			if code := p.Code(); code != 0 || p.Stdout.String() != "http://[::1%25lo]:"+port+"\n" {
				t.Errorf("%s: exit code %d, %q %q", vars, code, p.Stdout, p.Stderr)
			}
		}
	}
}

// forward leads all connections to an address, until the listener is closed.
func forward(l net.Listener, address string) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", address)
		if err != nil {
			near.Close()
			continue
		}
		go both(near, far)
	}
}
