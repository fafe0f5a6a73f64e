//go:build linux

package scenarios

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestCredentials: the password and the token for etcd are etcdlocker's alone. Neither its command
// nor its guard has them, unless that is wanted.
func TestCredentials(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithTokens(time.Hour))
	const password = "open-sesame"
	s.AddUser(t, "worker", password, "/worker")
	s.EnableAuth(t, "root-password")
	token := s.Token(t, "worker", password)
	byToken := []string{"ETCDCTL_AUTH_JWT_TOKEN=" + token}
	byVariables := []string{"ETCDCTL_USER=worker", "ETCDCTL_PASSWORD=" + password}
	tests := []struct {
		name string
		vars []string
		args []string
		kept bool
	}{
		{"variables", byVariables, nil, false},
		{"one variable", []string{"ETCDCTL_USER=worker:" + password}, nil, false},
		{"words", nil, []string{"--user", "worker", "--password", password}, false},
		{"one word", nil, []string{"--user=worker:" + password}, false},
		{"token", byToken, nil, false},
		{"token, kept", byToken, []string{"--keep-credentials"}, true},
		{"kept", byVariables, []string{"--keep-credentials"}, true},
		{"one variable, kept", []string{"ETCDCTL_USER=worker:" + password}, []string{"--keep-credentials"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := append(tt.args, "-e", s.Endpoint(), "-k", "/worker", "--", "sh", "-c", `env; echo ready; exec sleep 1000`, "--password=of-the-command")
			p := start(t, tt.vars, "etcdlocker", args...)
			p.says(p.stdout, "ready")
			has := func(text string) bool { return strings.Contains(text, password) || strings.Contains(text, token) }
			if has(p.stdout.String()) != tt.kept {
				t.Errorf("the command has the password or the token: %v", !tt.kept)
			}
			guard := guardOf(t, p)
			for _, file := range []string{"environ", "cmdline"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", guard, file))
				if err != nil {
					t.Fatal(err)
				}
				if has(string(text)) {
					t.Errorf("the guard's %s has the password or the token", file)
				}
				if file == "cmdline" && !strings.Contains(string(text), "--password=of-the-command") {
					t.Errorf("the command's words are not there: %q", text)
				}
			}
			p.signal(syscall.SIGTERM)
			if code := p.code(); code != 143 {
				t.Errorf("exit code %d, %s", code, p.stderr)
			}
		})
	}
}

// TestNewAuthority: a lock is kept when etcd gets a certificate of a new authority, which the file
// of --cacert names beside the one before.
func TestNewAuthority(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t, etcdtest.WithTLS())
	holder := locker(t, p.Endpoint(), "--cacert", p.Certs().CA, "-v", "-t", "30", "-r", "0.5", "-k", "/tls", "sleep", "1000")
	holder.renews(1)
	p.NewAuthority()
	holder.renews(3)
}

// TestClientCertificateAway: a lock is kept when the files with the client's certificate and key
// are not there for some time, or do not belong together, although etcd is connected to anew then.
func TestClientCertificateAway(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]func(*etcdtest.Certs) (in, instead string){
		"away":       func(c *etcdtest.Certs) (string, string) { return c.Cert, "" },
		"mismatched": func(c *etcdtest.Certs) (string, string) { return c.Key, c.ServerKey },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := etcdtest.StartProcess(t, etcdtest.WithClientCerts())
			c := p.Certs()
			holder := locker(t, p.Endpoint(), "--cacert", c.CA, "--cert", c.Cert, "--cert-key", c.Key, "-v", "-t", "30", "-r", "0.5", "-k", "/tls", "sleep", "1000")
			holder.renews(1)
			in, instead := file(c)
			kept := in + ".kept"
			err := os.Rename(in, kept)
			if err == nil && instead != "" {
				err = os.Link(instead, in)
			}
			if err != nil {
				t.Fatal(err)
			}
			p.Restart()
			renewals := func() int { return strings.Count(holder.stderr.String(), "lease renewed") }
			before := renewals()
			time.Sleep(3 * time.Second) // nothing tells of the renewals that do not happen
			if n := renewals() - before; n > 0 {
				t.Errorf("it has renewed its lease %d times without its certificate", n)
			}
			if err := os.Rename(kept, in); err != nil {
				t.Fatal(err)
			}
			holder.renews(3)
		})
	}
}

// TestLeastPrivileges: the commands in SECURITY.md make a user who may take that lock, wait for it
// and pass it on, and no other one.
func TestLeastPrivileges(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(text)) {
		if words, ok := strings.CutPrefix(line, "etcdctl "); ok {
			commands++
			etcdctl(t, s, strings.Fields(words))
		}
	}
	if commands < 6 {
		t.Errorf("only %d commands found", commands)
	}
	s.EnableAuth(t, "root-password")
	vars := []string{"ETCD_LOCK_HOST=" + s.Endpoint(), "ETCDCTL_USER=nightly", "ETCDCTL_PASSWORD=" + nightly}
	holder := start(t, vars, "etcdlocker", "-k", "/jobs/nightly", "-v", "sleep", "1000")
	holder.says(holder.stderr, "command started")
	waiter := start(t, vars, "etcdlocker", "-k", "/jobs/nightly", "echo", "ran")
	waiter.says(waiter.stderr, "place 1 in line")
	holder.signal(syscall.SIGTERM)
	if code := waiter.code(); code != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.stderr)
	}
	if p := start(t, vars, "etcdlocker", "-k", "/jobs/nightly-2", "echo", "ran"); p.code() != 1 || !strings.Contains(p.stderr.String(), "permission denied") {
		t.Errorf("another lock: %q, %s", p.stdout, p.stderr)
	}
	holder.code()
	free(t, s.Client(t), "/jobs/nightly")
}

// nightly is the password of the user that etcdctl adds, for which etcdctl asks.
const nightly = "of-the-night"

// etcdctl does what a command of etcdctl's does.
func etcdctl(t *testing.T, s *etcdtest.Server, words []string) {
	t.Helper()
	client, ctx := s.Client(t), etcdtest.Context(t)
	var err error
	switch command, args := words[0]+" "+words[1], words[2:]; {
	case command == "role add":
		_, err = client.RoleAdd(ctx, args[0])
	case command == "role grant-permission" && args[2] == "--prefix":
		prefix := args[len(args)-1]
		if strings.HasPrefix(prefix, "-") && args[3] != "--" {
			t.Fatalf("etcdctl %q: the prefix is taken for options", words)
		}
		_, err = client.RoleGrantPermission(ctx, args[0], prefix, clientv3.GetPrefixRangeEnd(prefix), permission(t, args[1]))
	case command == "role grant-permission":
		_, err = client.RoleGrantPermission(ctx, args[0], args[2], "", permission(t, args[1]))
	case command == "user add":
		_, err = client.UserAdd(ctx, args[0], nightly)
	case command == "user grant-role":
		_, err = client.UserGrantRole(ctx, args[0], args[1])
	default:
		t.Fatalf("etcdctl %v is not known here", words)
	}
	if err != nil {
		t.Fatalf("etcdctl %v: %v", words, err)
	}
}

func permission(t *testing.T, name string) clientv3.PermissionType {
	t.Helper()
	switch name {
	case "read":
		return clientv3.PermissionType(clientv3.PermRead)
	case "readwrite":
		return clientv3.PermissionType(clientv3.PermReadWrite)
	}
	t.Fatalf("the permission %q is not known", name)
	return 0
}
