//go:build linux

package steering

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

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
	holder := programs.Start(t, vars, "etcdlocker", "-k", "/jobs/nightly", "-v", "sleep", "1000")
	holder.Says(holder.Stderr, "command started")
	waiter := programs.Start(t, vars, "etcdlocker", "-k", "/jobs/nightly", "echo", "ran")
	waiter.Says(waiter.Stderr, "place 1 in line")
	holder.Signal(syscall.SIGTERM)
	if code := waiter.Code(); code != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %s", code, waiter.Stderr)
	}
	if p := programs.Start(t, vars, "etcdlocker", "-k", "/jobs/nightly-2", "echo", "ran"); p.Code() != 1 || !strings.Contains(p.Stderr.String(), "permission denied") {
		t.Errorf("another lock: %q, %s", p.Stdout, p.Stderr)
	}
	holder.Code()
	programs.CheckFree(t, s.Client(t), "/jobs/nightly")
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
	p := programs.Start(t, as("locks"), "etcdlocker", "--key="+prefix+"command", "echo", "ran")
	if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
		t.Errorf("etcdlocker with the role locks: exit code %d, %s", code, p.Stderr)
	}

	for _, args := range [][]string{{"list", "-o", "key", "--", prefix}, {"show", "--", prefix + "library"}} {
		p := programs.Start(t, as("sees"), "etcdlockctl", args...)
		if code := p.Code(); code != 0 || !strings.Contains(p.Stdout.String(), prefix+"library") {
			t.Errorf("%v with the role sees: exit code %d, %q, %s", args, code, p.Stdout, p.Stderr)
		}
	}
	w := programs.Start(t, as("sees"), "etcdlockctl", "watch", "--event", "acquired, released", "--count", "2", "--", prefix)
	for running := true; running; {
		locker := programs.Start(t, as("locks"), "etcdlocker", "--key="+prefix+"watched", "true")
		if code := locker.Code(); code != 0 {
			t.Fatalf("exit code %d, %s", code, locker.Stderr)
		}
		select {
		case <-w.Done:
			running = false
		default:
		}
	}
	if code := w.Code(); code != 0 || !strings.Contains(w.Stdout.String(), prefix+"watched") {
		t.Errorf("watch with the role sees: exit code %d, %q, %s", code, w.Stdout, w.Stderr)
	}
	for _, words := range []string{"pause --reason r --", "resume --token %d --"} {
		if strings.HasPrefix(words, "resume") {
			words = fmt.Sprintf(words, pauseOf(t, sees, prefix+"paused").Token)
		}
		for _, user := range []string{"sees", "locks"} { // in this order: it is paused then
			want := map[string]int{"sees": 1, "locks": 0}[user]
			p := programs.Start(t, as(user), "etcdlockctl", append(strings.Fields(words), prefix+"paused")...)
			if code := p.Code(); code != want || want == 1 && !strings.Contains(p.Stderr.String(), "pause and resume write there") {
				t.Errorf("%s with the role %s: exit code %d, %q, %s", words, user, code, p.Stdout, p.Stderr)
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
	p = programs.Start(t, as("sees"), "etcdlockctl", "break", "--token", strconv.FormatInt(lock.Kvs[0].ModRevision, 10), "--reason", "r", "--", prefix+"library")
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), "permission denied") || !strings.Contains(p.Stderr.String(), "needs to write") {
		t.Errorf("break with the role sees: exit code %d, %s", code, p.Stderr)
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
		p := programs.Start(t, nil, "etcdlockctl", "roles", "--", prefix)
		p.Code()
		if _, says, _ := strings.Cut(p.Stdout.String(), "such as "); !strings.HasPrefix(says, covers) || covers == "" && says != "" {
			t.Errorf("of %q it says %s", prefix, p.Stdout)
		}
		shell := exec.Command("sh", "-c", `etcdctl() { echo "$2"; [ "$2" != add ]; }`+"\n"+p.Stdout.String())
		if out, _ := shell.Output(); string(out) != "add\nadd\n" {
			t.Errorf("where the roles are there: %q", out)
		}
	}
}

// addRoles does what etcdlockctl roles prints, as a shell understands it, and adds a user for each
// of the roles.
func addRoles(t *testing.T, s *etcdtest.Server, prefix string) {
	t.Helper()
	p := programs.Start(t, nil, "etcdlockctl", "roles", "--", prefix)
	if code := p.Code(); code != 0 || !strings.Contains(p.Stdout.String(), "whoever can lock") {
		t.Fatalf("roles: exit code %d, %q, %s", code, p.Stdout, p.Stderr)
	}
	const end = "\x01"
	shell := exec.Command("sh", "-euc", `etcdctl() { printf '%s\0' "$@"; printf '\001'; }`+"\n"+p.Stdout.String())
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("a shell refuses %s: %v", p.Stdout, err)
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
		for line := range strings.Lines(p.Stdout.String()) {
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
