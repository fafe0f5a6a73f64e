//go:build linux

package scenarios

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestRoles: of the two roles that etcdlockctl prints, one is enough to list, show and watch the
// locks below the prefix and lets nobody write, delete or end a lease there. The other is enough to
// lock and to break. Neither reaches beyond the prefix.
func TestRoles(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	const prefix = "-it's $(my) jobs/"
	addRoles(t, s, prefix)
	s.EnableAuth(t, "root-password")
	as := func(user string) []string {
		return []string{"ETCD_LOCK_HOST=" + s.Endpoint(), "ETCDCTL_USER=user-" + user, "ETCDCTL_PASSWORD=" + nightly}
	}
	sees, locks := clientOf(t, s, "sees"), clientOf(t, s, "locks")
	ctx := etcdtest.Context(t)

	library, err := etcdlock.New(locks, prefix+"library", "me", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := library.Lock(ctx); err != nil {
		t.Fatalf("with the role locks: %v", err)
	}
	p := start(t, as("locks"), "etcdlocker", "--key="+prefix+"command", "echo", "ran")
	if code := p.code(); code != 0 || p.stdout.String() != "ran\n" {
		t.Errorf("etcdlocker with the role locks: exit code %d, %s", code, p.stderr)
	}

	for _, args := range [][]string{{"list", "-o", "key", "--", prefix}, {"show", "--", prefix + "library"}} {
		p := start(t, as("sees"), "etcdlockctl", args...)
		if code := p.code(); code != 0 || !strings.Contains(p.stdout.String(), prefix+"library") {
			t.Errorf("%v with the role sees: exit code %d, %q, %s", args, code, p.stdout, p.stderr)
		}
	}
	w := start(t, as("sees"), "etcdlockctl", "watch", "--event", "acquired, released", "--count", "2", "--", prefix)
	for running := true; running; {
		locker := start(t, as("locks"), "etcdlocker", "--key="+prefix+"watched", "true")
		if code := locker.code(); code != 0 {
			t.Fatalf("exit code %d, %s", code, locker.stderr)
		}
		select {
		case <-w.done:
			running = false
		default:
		}
	}
	if code := w.code(); code != 0 || !strings.Contains(w.stdout.String(), prefix+"watched") {
		t.Errorf("watch with the role sees: exit code %d, %q, %s", code, w.stdout, w.stderr)
	}
	for _, words := range []string{"pause --reason r --", "resume --token %d --"} {
		if strings.HasPrefix(words, "resume") {
			words = fmt.Sprintf(words, pauseOf(t, sees, prefix+"paused").Token)
		}
		for _, user := range []string{"sees", "locks"} { // in this order: it is paused then
			want := map[string]int{"sees": 1, "locks": 0}[user]
			p := start(t, as(user), "etcdlockctl", append(strings.Fields(words), prefix+"paused")...)
			if code := p.code(); code != want || want == 1 && !strings.Contains(p.stderr.String(), "pause and resume write there") {
				t.Errorf("%s with the role %s: exit code %d, %q, %s", words, user, code, p.stdout, p.stderr)
			}
		}
	}
	lock, err := sees.Get(ctx, prefix+"library")
	if err != nil || len(lock.Kvs) != 1 {
		t.Fatalf("with the role sees: %v, %v", lock, err)
	}
	_, put := sees.Put(ctx, prefix+"other", "")
	_, deletion := sees.Delete(ctx, prefix+"library")
	_, revocation := sees.Revoke(ctx, clientv3.LeaseID(lock.Kvs[0].Lease))
	_, beyond := sees.Get(ctx, "/other")
	_, lockBeyond := locks.Put(ctx, "/other", "")
	for what, err := range map[string]error{
		"writes": put, "deletes": deletion, "ends a lease": revocation, "reads beyond": beyond, "writes beyond": lockBeyond,
	} {
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("somebody %s: %v, want etcd's refusal", what, err)
		}
	}
	p = start(t, as("sees"), "etcdlockctl", "break", "--token", strconv.FormatInt(lock.Kvs[0].ModRevision, 10), "--reason", "r", "--", prefix+"library")
	if code := p.code(); code != 1 || !strings.Contains(p.stderr.String(), "permission denied") || !strings.Contains(p.stderr.String(), "needs to write") {
		t.Errorf("break with the role sees: exit code %d, %s", code, p.stderr)
	}
	if now, err := sees.Get(ctx, prefix+"library"); err != nil || now.Kvs[0].ModRevision != lock.Kvs[0].ModRevision {
		t.Errorf("after that: %v, %v", now, err)
	}
	if err := library.Close(ctx); err != nil {
		t.Error(err)
	}
	s.Empty(t)
}

// TestRolesOfASecondPrefix: roles that are there already do not get another prefix as well. What a
// prefix covers is said.
func TestRolesOfASecondPrefix(t *testing.T) {
	t.Parallel()
	for prefix, covers := range map[string]string{"/jobs/nightly": "/jobs/nightly-2", "/jobs/": "", "": ""} {
		p := start(t, nil, "etcdlockctl", "roles", "--", prefix)
		p.code()
		if _, says, _ := strings.Cut(p.stdout.String(), "such as "); !strings.HasPrefix(says, covers) || covers == "" && says != "" {
			t.Errorf("of %q it says %s", prefix, p.stdout)
		}
		shell := exec.Command("sh", "-c", `etcdctl() { echo "$2"; [ "$2" != add ]; }`+"\n"+p.stdout.String())
		if out, _ := shell.Output(); string(out) != "add\nadd\n" {
			t.Errorf("where the roles are there: %q", out)
		}
	}
}

// addRoles does what etcdlockctl roles prints, as a shell understands it, and adds a user for each
// of the roles.
func addRoles(t *testing.T, s *etcdtest.Server, prefix string) {
	t.Helper()
	p := start(t, nil, "etcdlockctl", "roles", "--", prefix)
	if code := p.code(); code != 0 || !strings.Contains(p.stdout.String(), "whoever can lock") {
		t.Fatalf("roles: exit code %d, %q, %s", code, p.stdout, p.stderr)
	}
	const end = "\x01"
	shell := exec.Command("sh", "-euc", `etcdctl() { printf '%s\0' "$@"; printf '\001'; }`+"\n"+p.stdout.String())
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("a shell refuses %s: %v", p.stdout, err)
	}
	commands := strings.Split(strings.TrimSuffix(string(out), end), end)
	if len(commands) != 4 {
		t.Errorf("%d commands: %q", len(commands), commands)
	}
	for _, words := range commands {
		etcdctl(t, s, strings.Split(strings.TrimSuffix(words, "\x00"), "\x00"))
	}
	for _, role := range []string{"sees", "locks"} {
		grants := 0
		for line := range strings.Lines(p.stdout.String()) {
			words, ok := strings.CutPrefix(strings.ReplaceAll(line, "USER", "user-"+role), "# etcdctl ")
			if ok && (strings.HasPrefix(words, "user add") || strings.HasSuffix(words, " "+role+"\n")) {
				grants++
				etcdctl(t, s, strings.Fields(words))
			}
		}
		if grants != 2 {
			t.Errorf("%d lines tell how a user gets the role %s", grants, role)
		}
	}
}

// clientOf returns a client of the user that addRoles has added for a role.
func clientOf(t *testing.T, s *etcdtest.Server, role string) *clientv3.Client {
	t.Helper()
	config := s.Config()
	config.Username, config.Password = "user-"+role, nightly
	return etcdtest.Dial(t, config)
}
