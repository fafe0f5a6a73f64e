package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestManyLogins: a hundred holders with a password, which etcd checks at its usual cost, begin at
// once and keep their locks. They log in once each, and not for their renewals.
func TestManyLogins(t *testing.T) {
	t.Parallel()
	s := etcdtest.StartProcess(t)
	s.AddUser(t, "worker", "pass", "/many")
	s.EnableAuth(t, "root-password")
	gate := etcdtest.NewGate(t, s.Endpoint())
	count, logins := etcdtest.Counting("Authenticate")
	gate.Intercept(count)
	const holders, times = 100, 8 // as often as in a minute
	var all []*program
	for i := range holders {
		all = append(all, start(t, []string{"ETCDCTL_USER=worker:pass"}, "etcdlocker", "-v", "-e", gate.Endpoint(), "-t", "15",
			"--connect-timeout", "5m", "-k", fmt.Sprint("/many/", i), "sleep", "1000"))
	}
	for _, p := range all {
		p.renews(times - strings.Count(p.stderr.String(), "lease renewed"))
	}
	if n := logins.Load(); n < holders || n > holders*3/2 {
		t.Errorf("%d logins of %d holders", n, holders)
	}
	for _, p := range all {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range all {
		if code := p.code(); code != 143 {
			t.Errorf("exit code %d, %s", code, p.stderr)
		}
	}
}

// TestDeniedWhileHeld: a lock whose holder etcd does not let read and write any more is lost in
// time, and it is said why.
func TestDeniedWhileHeld(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	users := []string{"demoted", "renamed", "removed", "careful"}
	for _, user := range users {
		s.AddUser(t, user, "pass", "/"+user)
	}
	s.EnableAuth(t, "root-password")
	root, ctx := s.Client(t), etcdtest.Context(t)
	hold := func(user string) (p *program, file string) {
		file = filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("pass\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p = locker(t, s.Endpoint(), "-v", "-t", "15", "-r", "0.2", "--user", user, "--password-file", file, "-k", "/"+user, "sleep", "1000")
		p.renews(1)
		return p, file
	}
	demoted, _ := hold("demoted")
	renamed, _ := hold("renamed")
	removed, _ := hold("removed")
	careful, file := hold("careful")
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := root.RoleRevokePermission(ctx, "demoted", "/demoted", "")
			return err
		},
		func(ctx context.Context) error {
			_, err := root.UserChangePassword(ctx, "renamed", "other")
			return err
		},
		func(ctx context.Context) error {
			_, err := root.UserDelete(ctx, "removed")
			return err
		},
		func(ctx context.Context) error {
			if err := os.WriteFile(file, []byte("other\n"), 0o600); err != nil {
				return err
			}
			_, err := root.UserChangePassword(ctx, "careful", "other")
			return err
		},
	} {
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for p, why := range map[*program]string{demoted: "permission denied", renamed: "authentication failed", removed: "authentication failed"} {
		code := p.code()
		said := p.stderr.String()
		if code != 2 || !strings.Contains(said, "could not be renewed in time") || !strings.Contains(said, why) || !strings.Contains(said, "lets this user no more") {
			t.Errorf("%s: exit code %d, %s", why, code, said)
		}
	}
	careful.renews(5)
	held(t, root, "/careful")
	careful.signal(syscall.SIGTERM)
	careful.code()
	gone := func(key string) {
		etcdtest.Await(t, key+" to be free", func(ctx context.Context) error {
			resp, err := root.Get(ctx, key, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err == nil && resp.Count > 0 {
				err = fmt.Errorf("%d keys", resp.Count)
			}
			return err
		})
	}
	for _, user := range users {
		gone("/" + user)
	}
}
