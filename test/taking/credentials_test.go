//go:build linux

package taking

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
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
			p := programs.Start(t, tt.vars, "etcdlocker", args...)
			p.Says(p.Stdout, "ready")
			has := func(text string) bool { return strings.Contains(text, password) || strings.Contains(text, token) }
			if has(p.Stdout.String()) != tt.kept {
				t.Errorf("the command has the password or the token: %v", !tt.kept)
			}
			guard := programs.GuardOf(t, p)
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
			p.Signal(syscall.SIGTERM)
			if code := p.Code(); code != 143 {
				t.Errorf("exit code %d, %s", code, p.Stderr)
			}
		})
	}
}

// TestNewAuthority: a lock is kept when etcd gets a certificate of a new authority, which the file
// of --cacert names beside the one before.
func TestNewAuthority(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t, etcdtest.WithTLS())
	holder := programs.Locker(t, p.Endpoint(), "--cacert", p.Certs().CA, "-v", "-t", "30", "-r", "0.5", "-k", "/tls", "sleep", "1000")
	holder.Renews(1)
	p.NewAuthority()
	holder.Renews(3)
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
			holder := programs.Locker(t, p.Endpoint(), "--cacert", c.CA, "--cert", c.Cert, "--cert-key", c.Key, "-v", "-t", "30", "-r", "0.5", "-k", "/tls", "sleep", "1000")
			holder.Renews(1)
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
			renewals := func() int { return strings.Count(holder.Stderr.String(), "lease renewed") }
			before := renewals()
			time.Sleep(3 * time.Second) // nothing tells of the renewals that do not happen
			if n := renewals() - before; n > 0 {
				t.Errorf("it has renewed its lease %d times without its certificate", n)
			}
			if err := os.Rename(kept, in); err != nil {
				t.Fatal(err)
			}
			holder.Renews(3)
		})
	}
}
