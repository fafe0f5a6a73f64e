//go:build linux

package steering

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestListCommand: list and show say who holds a lock and who waits, in words and for programs.
func TestListCommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	holder := programs.Locker(t, s.Endpoint(), "-v", "-k", "/list/a b", "-i", "me", "--why", "month end", "sleep", "1000")
	holder.Says(holder.Stderr, "command started")
	waiter := programs.Locker(t, s.Endpoint(), "-k", "/list/a b", "-i", "other", "true")
	waiter.Says(waiter.Stderr, "waiting for lock")
	tries := programs.Locker(t, s.Endpoint(), "-k", "/list/a b", "--try", "true")
	if code := tries.Code(); code != 1 || !strings.Contains(tries.Stderr.String(), "etcdlockctl show -e "+s.Endpoint()+" '/list/a b' says who is there") {
		t.Errorf("--try: exit code %d, %s", code, tries.Stderr)
	}
	run := func(want int, args ...string) string {
		t.Helper()
		p := programs.Start(t, nil, "etcdlockctl", append(args, "-e", s.Endpoint())...)
		if code := p.Code(); code != want {
			t.Errorf("%q: exit code %d, %s", args, code, p.Stderr)
		}
		return p.Stdout.String()
	}
	rows := strings.Split(run(0, "list", "/list/"), "\n")
	if len(rows) != 3 || strings.Join(strings.Fields(rows[0]), " ") != "KEY HOLDER COMMAND HELD RENEWED WAITING" || !strings.HasPrefix(rows[1], `"/list/a b"  me      sleep`) {
		t.Errorf("list: %q", rows)
	}
	if got := run(0, "ls", "/list/", "-o", "key", "-0"); got != "/list/a b\x00" {
		t.Errorf("-o key: %q", got)
	}
	if got := run(0, "list", "/list/", "--no-headers", "--host", "elsewhere"); got != "" {
		t.Errorf("--host: %q", got)
	}
	var all struct {
		Locks []struct {
			Key, State, Mode string
			Token            int64
			Holder           struct{ Kind, ID, User, Why string }
			Waiters          []struct{ ID string }
		}
		Revision int64
	}
	if err := json.Unmarshal([]byte(run(0, "list", "/list/", "-o", "json")), &all); err != nil || len(all.Locks) != 1 || all.Revision == 0 {
		t.Fatalf("-o json: %+v, %v", all, err)
	}
	if l := all.Locks[0]; l.Key != "/list/a b" || l.State != "held" || l.Mode != "exclusive" || l.Token == 0 || l.Holder.Kind != "etcdlocker" || l.Holder.User == "" || l.Holder.Why != "month end" ||
		l.Holder.ID != "me" || len(l.Waiters) != 1 || l.Waiters[0].ID != "other" {
		t.Errorf("-o json: %+v", l)
	}
	if got := run(0, "show", "/list/a b"); !strings.Contains(got, "is held\n  holder  me, pid ") || !strings.Contains(got, "etcdlockctl break -e "+s.Endpoint()+" '/list/a b' --token ") {
		t.Errorf("show: %s", got)
	}
	if got := run(0, "show", "-q", "/list/a b"); got != "" {
		t.Errorf("show -q: %s", got)
	}
	if got := run(3, "show", "/list/none"); got != "lock /list/none is free\n" {
		t.Errorf("show of a free lock: %s", got)
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	if code := waiter.Code(); code != 0 {
		t.Errorf("the waiter: exit code %d", code)
	}
}

// TestOddKeys: what a key has in it does not control a terminal, nor does JSON. A list of nothing
// has a revision as well.
func TestOddKeys(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	const key = "/odd/a\x1b[2J\u009b\u202e"
	holder := programs.Locker(t, s.Endpoint(), "-v", "-k", key, "-i", "me\u009b", "sleep", "1000")
	holder.Says(holder.Stderr, "command started")
	run := func(args ...string) *programs.Run {
		t.Helper()
		p := programs.Start(t, nil, "etcdlockctl", append(args, "-e", s.Endpoint())...)
		if code := p.Code(); code != 0 {
			t.Errorf("%q: exit code %d, %s", args, code, p.Stderr)
		}
		return p
	}
	if got := run("list", "/odd/", "-o", "key").Stdout.String(); got != key+"\n" {
		t.Errorf("-o key: %q", got)
	}
	on := programs.CommandOnTerminal(t, 200, exec.Command(programs.Path("etcdlockctl"), "list", "/odd/", "-o", "key", "-e", s.Endpoint()))
	if code := on.Code(); code != 0 || !strings.Contains(on.Stdout.String(), `"/odd/a\x1b[2J\u009b\u202e"`) {
		t.Errorf("-o key on a terminal: %q", on.Stdout)
	}
	for _, output := range []string{"json", "jsonl"} {
		got := run("list", "/odd/", "-o", output).Stdout.String()
		if strings.ContainsAny(got, "\x1b\u009b\u202e") || !strings.Contains(got, `\u009b\u202e`) {
			t.Errorf("-o %s: %q", output, got)
		}
	}
	if got := run("show", key).Stdout.String(); !strings.Contains(got, " $'/odd/a\\033[2J\\302\\233\\342\\200\\256' --token ") {
		t.Errorf("show: %q", got)
	}
	var none struct{ Revision int64 }
	if err := json.Unmarshal([]byte(run("list", "/odd/none", "-o", "json").Stdout.String()), &none); err != nil || none.Revision == 0 {
		t.Errorf("nothing is listed: %+v, %v", none, err)
	}
}

// TestKeysLikeOthers: locks whose keys look like options, or like parts of other locks, are shown,
// and what show says stops them. Of a key that is but a part of a lock it says so.
func TestKeysLikeOthers(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	for _, key := range []string{"-x", "/like/~abc-1", "/like/=3.abc-1", "/like/=3#0"} {
		holder := programs.Locker(t, s.Endpoint(), "-k="+key, "sleep", "1000")
		programs.AwaitHeld(t, s.Client(t), key)
		shows := programs.Start(t, nil, "etcdlockctl", "show", "-e", s.Endpoint(), "--", key)
		shows.Code()
		_, command, _ := strings.Cut(shows.Stdout.String(), ": etcdlockctl ")
		command, _, _ = strings.Cut(command, "\n")
		sh := programs.StartCommand(t, nil, exec.Command("sh", "-c", programs.Path("etcdlockctl")+" "+command))
		if code := sh.Code(); code != 0 || !strings.Contains(sh.Stdout.String(), "it stopped after ") {
			t.Errorf("%q: exit code %d, %s%s", command, code, sh.Stdout, sh.Stderr)
		}
		if code := holder.Code(); code != 2 {
			t.Errorf("%q: exit code %d", key, code)
		}
	}
	const hint = `hint: the key "/like/=3#1" is called like a part of the lock "/like"`
	for _, args := range [][]string{{"show"}, {"break", "--token", "7", "--reason", "r"}} {
		if p := ctl(t, s, 3, append(args, "/like/=3#1")...); !strings.Contains(p.Stderr.String(), hint) {
			t.Errorf("%q: %s", args, p.Stderr)
		}
	}
}

// TestShowAMutex: what show says of a lock that etcdctl has, and of a key that was put by hand, is
// what break takes.
func TestShowAMutex(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	granted, err := client.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	mutex := "/mutex/" + strconv.FormatInt(int64(granted.ID), 16)
	for key, put := range map[string]clientv3.Op{"/mutex": clientv3.OpPut(mutex, "", clientv3.WithLease(granted.ID)), "/hand": clientv3.OpPut("/hand", "ops")} {
		if _, err := client.Do(ctx, put); err != nil {
			t.Fatal(err)
		}
		p := programs.Start(t, nil, "etcdlockctl", "show", key, "-e", s.Endpoint())
		p.Code()
		_, command, _ := strings.Cut(p.Stdout.String(), ": etcdlockctl ")
		command, _, _ = strings.Cut(command, "\n")
		b := programs.Start(t, nil, "etcdlockctl", append(strings.Fields(command), "--even-if-alive")...)
		if code := b.Code(); code != 0 || !strings.Contains(b.Stdout.String(), "nobody has the lock now") {
			t.Errorf("%s: %q: exit code %d, %s", key, command, code, b.Stderr)
		}
	}
}

// TestClockAhead: what another host has written that its clock has not come to here is shown so. A
// pause that has not begun, and waits for nothing, is about to.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	granted, err := client.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	pause := record.Pause{By: "ops", Host: "c", Reason: "r", At: time.Now().Add(time.Hour + 30*time.Minute)}
	if _, err := client.Put(ctx, "/clock-ahead/"+strconv.FormatInt(int64(granted.ID), 16), pause.Value(), clientv3.WithLease(granted.ID)); err != nil {
		t.Fatal(err)
	}
	shows := ctl(t, s, 0, "show", "/clock-ahead").Stdout.String()
	if !strings.HasPrefix(shows, "lock /clock-ahead is about to be paused\n  holder  a pause by ops@c: \"r\", its clock is ahead by 1h") {
		t.Errorf("show: %s", shows)
	}
	if got := ctl(t, s, 0, "list", "/clock-ahead", "--no-headers").Stdout.String(); strings.Contains(got, "<") {
		t.Errorf("list: %s", got)
	}
}

// holds has somebody wait in line, and get the lock then. It says since when it stands there, and,
// unless that is zero, since when it has the lock.
func holds(t *testing.T, client *clientv3.Client, key string, joined, since time.Time) {
	t.Helper()
	ctx := etcdtest.Context(t)
	granted, err := client.Grant(ctx, 600)
	if err != nil {
		t.Fatal(err)
	}
	lease, place := clientv3.WithLease(granted.ID), wire.LinkedPlace(key, granted.ID, 1)
	says := fmt.Sprintf(`{"v":1,"id":"old","since":%q}`, joined.UTC().Format(time.RFC3339))
	if _, err := client.Put(ctx, place, says, lease); err != nil {
		t.Fatal(err)
	}
	got, err := client.Txn(ctx).Then(clientv3.OpPut(key, "old", lease), clientv3.OpPut(place, says, lease)).Commit()
	if err == nil && !since.IsZero() {
		_, err = client.Put(ctx, key+"~since", record.Since{Token: got.Header.Revision, At: since.UTC()}.Marshal(), lease)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHeldSince: whoever waited for a lock has it since it says so, and not since it joined the
// line: for list --older-than, --sort held, and the waiting line.
func TestHeldSince(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client, now := s.Client(t), time.Now()
	long, short := now.Add(-3*time.Hour), now.Add(-time.Hour)
	holds(t, client, "/held/a-unknown", long, time.Time{})
	holds(t, client, "/held/b-short", long, short)
	holds(t, client, "/held/c-young", now, time.Time{})
	holds(t, client, "/held/d-long", long, long)
	list := func(args ...string) *programs.Run {
		return ctl(t, s, 0, append([]string{"list", "/held/", "-o", "key"}, args...)...)
	}
	older := list("--older-than", "7200")
	if got := older.Stdout.String(); got != "/held/d-long\n" || !strings.Contains(older.Stderr.String(), "since when is not known: 1\n") {
		t.Errorf("--older-than 2h: %q, %q", got, older.Stderr)
	}
	if got := list("--sort", "held").Stdout.String(); got != "/held/d-long\n/held/b-short\n/held/a-unknown\n/held/c-young\n" {
		t.Errorf("--sort held: %q", got)
	}
	p := programs.Start(t, nil, "etcdlockctl", "pause", "/held/b-short", "-e", s.Endpoint(), "--reason", "r")
	pauseOf(t, client, "/held/b-short")
	known := programs.Locker(t, s.Endpoint(), "-k", "/held/b-short", "true")
	known.Says(known.Stderr, `held by "old" since `+short.Format("15:04:05")+" (1h")
	known.Says(known.Stderr, "), and a pause by ")
	unknown := programs.Locker(t, s.Endpoint(), "-k", "/held/a-unknown", "true")
	unknown.Says(unknown.Stderr, `held by "old", place 1 in line`)
	for _, p := range []*programs.Run{p, known, unknown} {
		p.Signal(syscall.SIGTERM)
		p.Code()
	}
}

// TestUnder: who runs under another lock says so.
func TestUnder(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	inner := []string{programs.Path("etcdlocker"), "-v", "-e", s.Endpoint(), "-k", "/under/inner", "sleep", "1000"}
	p := programs.Locker(t, s.Endpoint(), append([]string{"-k", "/under/outer", "--"}, inner...)...)
	p.Says(p.Stderr, "key=/under/inner token=")
	show := programs.Start(t, nil, "etcdlockctl", "show", "/under/inner", "-e", s.Endpoint())
	if code := show.Code(); code != 0 || !strings.Contains(show.Stdout.String(), ", under /under/outer, joined ") {
		t.Errorf("exit code %d, %s%s", code, show.Stdout, show.Stderr)
	}
}
