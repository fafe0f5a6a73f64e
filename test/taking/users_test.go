//go:build linux

package taking

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// holding is how long TestManyLogins lasts. What is not short is compared with etcdctl lock.
var holding = flag.Duration("holding", shortHolding, "how long TestManyLogins holds its locks; if longer than usual, beside etcdctl lock")

const (
	shortHolding = 20 * time.Second
	renewedEvery = 5 * time.Second
)

// TestManyLogins: a hundred holders with a password, which etcd checks at its usual cost, begin at
// once and keep their locks. They log in once each, and not for their renewals. A busy machine
// needs longer than usual for so many logins, and must not lose the locks of those who were first.
func TestManyLogins(t *testing.T) {
	t.Parallel()
	var theirs *holders
	if *holding > shortHolding {
		theirs = holdByEtcdctl(t)
	}
	ours := newHolders(t)
	for i := range manyHolders {
		ours.hold("etcdlocker", "-v", "-e", ours.endpoint, "-t", "300", "-r", renewedEvery.String(), "--connect-timeout", "5m", "-k", fmt.Sprint("/many/", i), "sleep", "100000")
	}
	times := int(*holding / renewedEvery)
	for _, p := range ours.all {
		p.Renews(times - strings.Count(p.Stderr.String(), "lease renewed"))
	}
	if n := ours.logins.Load(); n < manyHolders || n > manyHolders*3/2 {
		t.Errorf("%d logins of %d holders", n, manyHolders)
	}
	rate := ours.rate()
	if theirs != nil {
		limit := theirs.rate()
		t.Logf("logins for each holder and hour: %.1f, of etcdctl lock %.1f (%d and %d)", rate, limit, ours.logins.Load(), theirs.logins.Load())
		if rate > limit {
			t.Error("more than etcdctl lock")
		}
		theirs.end(0)
	}
	ours.end(143)
}

const manyHolders = 100

// holders are programs that hold locks in an etcd of their own, as one of its users.
type holders struct {
	t        *testing.T
	endpoint string
	logins   *atomic.Int64
	all      []*programs.Run
	since    []time.Time
}

func newHolders(t *testing.T) *holders {
	s := etcdtest.StartProcess(t)
	s.AddUser(t, "worker", "pass", "/many")
	s.EnableAuth(t, "root-password")
	gate := etcdtest.NewGate(t, s.Endpoint())
	count, logins := etcdtest.Counting("Authenticate")
	gate.Intercept(count)
	return &holders{t: t, endpoint: gate.Endpoint(), logins: logins}
}

// hold starts one.
func (h *holders) hold(name string, args ...string) *programs.Run {
	h.since = append(h.since, time.Now())
	h.all = append(h.all, programs.Start(h.t, []string{"ETCDCTL_USER=worker:pass"}, name, args...))
	return h.all[len(h.all)-1]
}

// holdByEtcdctl starts as many of etcdctl's, one after the other: they do not wait as long for a
// login as ours.
func holdByEtcdctl(t *testing.T) *holders {
	h := newHolders(t)
	programs.BuildEtcdctl(t)
	for i := range manyHolders {
		p := h.hold("etcdctl", "--endpoints", h.endpoint, "lock", "--ttl", "15", fmt.Sprint("/many/", i))
		p.Says(p.Stdout, "/many/")
	}
	return h
}

// rate is how often each logs in in an hour.
func (h *holders) rate() float64 {
	var held time.Duration
	for _, since := range h.since {
		held += time.Since(since)
	}
	return float64(h.logins.Load()) / held.Hours()
}

// end ends all, who must still hold their locks.
func (h *holders) end(code int) {
	for _, p := range h.all {
		select {
		case <-p.Done:
			h.t.Errorf("it has lost its lock: %s", p.Stderr)
		default:
			p.Signal(syscall.SIGTERM)
		}
	}
	for _, p := range h.all {
		if c := p.Code(); c != code {
			h.t.Errorf("exit code %d, %s", c, p.Stderr)
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
	hold := func(user string) (p *programs.Run, file string) {
		file = filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("pass\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p = programs.Locker(t, s.Endpoint(), "-v", "-t", "15", "-r", "0.2", "--connect-timeout", "1m", "--user", user, "--password-file", file, "-k", "/"+user, "sleep", "1000")
		p.Renews(1)
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
	for p, why := range map[*programs.Run]string{demoted: "permission denied", renamed: "authentication failed", removed: "authentication failed"} {
		code := p.Code()
		said := p.Stderr.String()
		if code != 2 || !strings.Contains(said, "could not be renewed in time") || !strings.Contains(said, why) || !strings.Contains(said, "lets this user no more") {
			t.Errorf("%s: exit code %d, %s", why, code, said)
		}
	}
	careful.Renews(5)
	programs.AwaitHeld(t, root, "/careful")
	careful.Signal(syscall.SIGTERM)
	careful.Code()
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
