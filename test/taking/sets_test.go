//go:build linux

package taking

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// A heldLock is one of those that a command finds in its environment.
type heldLock struct {
	Key       string `json:"key"`
	KeyBase64 []byte `json:"key_base64"`
	Token     int64  `json:"token"`
	Mode      string `json:"mode"`
	Slot      *int   `json:"slot"`
}

// TestSeveralKeys: all are held under one lease while the command runs, which finds them sorted in
// its environment, as does what looks after it. Then nothing is left.
func TestSeveralKeys(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := s.Client(t)
	for _, tt := range []struct{ keys, sorted []string }{
		{[]string{"/c<&>d", "/a", "/b"}, []string{"/a", "/b", "/c<&>d"}},
		{[]string{"/no\xffutf8", "/a"}, []string{"/a", "/no\xffutf8"}},
		{[]string{"/a"}, []string{"/a"}},
	} {
		file, check := filepath.Join(t.TempDir(), "go"), filepath.Join(t.TempDir(), "check")
		p := programs.Locker(t, s.Endpoint(), append(programs.Keys(tt.keys...), "-r", "0.1", "--pulse-cmd", `echo "$ETCDLOCK_HELD" > `+check, "--", "sh", "-c",
			`echo "$ETCDLOCK_HELD"; echo "$ETCDLOCK_HELD_KEY $ETCDLOCK_HELD_REV $ETCDLOCK_HELD_LEASE $ETCDLOCK_HELD_MODE"; echo "$ETCD_LOCK_KEY $ETCD_LOCK_REV"
			while [ ! -e "$0" ]; do sleep 0.05; done`, file)...)
		p.Says(p.Stdout, tt.sorted[0]+" ")
		etcdtest.Await(t, "all that it says", func(context.Context) error {
			if strings.Count(p.Stdout.String(), "\n") < 3 {
				return fmt.Errorf("%q", p.Stdout)
			}
			return nil
		})
		lines := strings.Split(p.Stdout.String(), "\n")
		var found []heldLock
		if err := json.Unmarshal([]byte(lines[0]), &found); err != nil || len(found) != len(tt.keys) {
			t.Fatalf("%q: %v", lines[0], err)
		}
		lease := ""
		for i, key := range tt.sorted {
			kv := programs.AwaitHeld(t, client, key).Kvs[0]
			if got := found[i].Key + string(found[i].KeyBase64); got != key || found[i].Token != kv.ModRevision || found[i].Mode != "exclusive" {
				t.Errorf("it finds %+v for %q with the token %d", found[i], key, kv.ModRevision)
			}
			if own := strconv.FormatInt(kv.Lease, 16); lease != "" && own != lease {
				t.Errorf("%q hangs on %s, and another key on %s", key, own, lease)
			} else {
				lease = own
			}
		}
		first := fmt.Sprintf("%s %d", tt.sorted[0], found[0].Token)
		if lines[1] != first+" "+lease+" exclusive" || lines[2] != first {
			t.Errorf("it finds %q and %q, want %q with lease %s", lines[1], lines[2], first, lease)
		}
		if got := programs.AwaitFile(t, check); got != lines[0] {
			t.Errorf("the check finds %q, and the command %q", got, lines[0])
		}
		programs.Create(t, file)
		if code := p.Code(); code != 0 {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
		s.Empty(t)
	}
}

// TestSetWithoutACommand: each key and its token is printed, sorted, and messages name the keys.
func TestSetWithoutACommand(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	p := programs.Locker(t, s.Endpoint(), programs.Keys("/e", "/b", "/d", "/c", "/a")...)
	want := ""
	for _, key := range []string{"/a", "/b", "/c", "/d", "/e"} {
		want += fmt.Sprintf("%s %d\n", key, programs.AwaitHeld(t, s.Client(t), key).Kvs[0].ModRevision)
	}
	p.Says(p.Stdout, want)
	p.Signal(syscall.SIGTERM)
	const says = `etcdlocker: error: stopped by SIGTERM; locks "/a", "/b", "/c" and 2 more are released` + "\n"
	if code := p.Code(); code != 143 || p.Said() != says || p.Stdout.String() != want {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	s.Empty(t)
}

// TestSetsInAnyOrder: many that name their keys in any order all get their turns, and no two work
// under one key. So do those that take one key, and the next one below that.
func TestSetsInAnyOrder(t *testing.T) {
	t.Parallel()
	s, dir, again := etcdtest.Shared(t), t.TempDir(), programs.Path("etcdlocker")
	orders := [][]string{{"a", "b", "c"}, {"c", "b", "a"}, {"b", "a"}, {"c", "a"}, {"c", "b"}, {"b"}}
	const script = `cd "$0"; for key; do mkdir "$key" || exit 9; done; sleep 0.01; rmdir "$@"`
	var all []*programs.Run
	for range 3 {
		for _, order := range orders {
			var options []string
			for _, name := range order {
				options = append(options, "-k", "/any/"+name)
			}
			all = append(all, programs.Locker(t, s.Endpoint(), append(append(options, "-t", "60", "--", "sh", "-c", script, dir), order...)...))
		}
		all = append(all, programs.Locker(t, s.Endpoint(), "-k", "/any/a", "-t", "60", "--",
			again, "-k", "/any/c", "-t", "60", "-e", s.Endpoint(), "--", "sh", "-c", script, dir, "a", "c"))
	}
	const outer = `mkdir "$0/a" && "$@"; code=$?; rmdir "$0/a"; exit $code`
	for range 3 { // single locks in this order
		inner := []string{programs.Path("etcdlocker"), "-t", "60", "-k", "/any/c", "--", "sh", "-c", script, dir, "c"}
		all = append(all, programs.Locker(t, s.Endpoint(), append([]string{"-k", "/any/a", "-t", "60", "--", "sh", "-c", outer, dir}, inner...)...))
	}
	for _, p := range all {
		if code := p.Code(); code != 0 || strings.Contains(p.Said(), "warning") {
			t.Errorf("exit code %d, %q", code, p.Stderr)
		}
	}
	programs.CheckFree(t, s.Client(t), "/any/a", "/any/b", "/any/c")
}

// TestOtherOrder: who waits for a key that is less than one that it runs under is warned once.
func TestOtherOrder(t *testing.T) {
	t.Parallel()
	s, again := etcdtest.Shared(t), programs.Path("etcdlocker")
	for name, greater := range map[string]string{"text": "/other-order/c", "bytes": "/other-order/\xff"} {
		lesser := "/other-order/a-" + name
		first := programs.Locker(t, s.Endpoint(), "-k", lesser)
		programs.AwaitHeld(t, s.Client(t), lesser)
		p := programs.Locker(t, s.Endpoint(), "-k", greater, "--", again, "-k", lesser, "echo", "ran")
		p.Says(p.Stderr, "place 1 in line\n")
		first.Stop()
		if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" || strings.Count(p.Stderr.String(), fmt.Sprintf("warning: lock %q is waited for below %q: ", lesser, greater)) != 1 {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
	}
	p := programs.Locker(t, s.Endpoint(), "-k", "/other-order/b", "--", again, "-k", "/other-order/a", "echo", "ran")
	if code := p.Code(); code != 0 || strings.Contains(p.Said(), "warning") {
		t.Errorf("a lesser one that is free: exit code %d, %q", code, p.Stderr)
	}
}

// TestSetWaits: who waits keeps what it has, and says which lock it waits for, once for each.
func TestSetWaits(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	one := programs.Locker(t, s.Endpoint(), "-k", "/waits/b", "-i", "one")
	programs.AwaitHeld(t, client, "/waits/b")
	two := programs.Locker(t, s.Endpoint(), "-k", "/waits/c", "-i", "two")
	programs.AwaitHeld(t, client, "/waits/c")
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/waits/c", "/waits/b", "/waits/a", "/waits/d"), "--wait", "10m", "echo", "ran")...)
	const says = `etcdlocker: waiting for locks "/waits/a", "/waits/b", "/waits/c" and 1 more: `
	p.Says(p.Stderr, says+`"/waits/b" is held by "one" since `)
	p.Says(p.Stderr, "place 1 in line\n")
	if q := programs.Locker(t, s.Endpoint(), "-k", "/waits/a", "--try", "true"); q.Code() != 1 {
		t.Error("it does not keep what it has")
	}
	one.Signal(syscall.SIGTERM)
	p.Says(p.Stderr, says+`"/waits/c" is held by "two" since `)
	two.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" || strings.Count(p.Stderr.String(), "waiting for") != 2 {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
	programs.CheckFree(t, client, "/waits/a", "/waits/b", "/waits/c", "/waits/d")
}

// TestSetWaitsOnATerminal: there the line is about the lock that is waited for now.
func TestSetWaitsOnATerminal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	one, two := programs.Locker(t, s.Endpoint(), "-k", "/set-line/a", "-i", "one"), programs.Locker(t, s.Endpoint(), "-k", "/set-line/b", "-i", "two")
	programs.AwaitHeld(t, s.Client(t), "/set-line/a")
	programs.AwaitHeld(t, s.Client(t), "/set-line/b")
	waiter := programs.OnTerminal(t, 200, s.Endpoint(), append(programs.Keys("/set-line/b", "/set-line/a"), "echo", "ran")...)
	const says = `etcdlocker: waiting for locks "/set-line/a" and "/set-line/b": `
	waiter.Says(waiter.Stdout, says+`"/set-line/a" is held by "one" since `)
	one.Signal(syscall.SIGTERM)
	waiter.Says(waiter.Stdout, says+`"/set-line/b" is held by "two" since `)
	two.Signal(syscall.SIGTERM)
	code, shown := waiter.Code(), waiter.Shown()
	if code != 0 || !strings.HasSuffix(shown, "\r\x1b[Kran\r\n") || strings.Count(shown, "\n") != 1 {
		t.Errorf("exit code %d, it shows %q", code, shown)
	}
}

// TestSetTries: who tries, or whose time is over, has none of the locks, and says which was not
// free.
func TestSetTries(t *testing.T) {
	t.Parallel()
	slowEtcd := regexp.MustCompile(`(?m)^.*cannot take back a place in line yet.*\n`)
	s := etcdtest.Start(t)
	client := s.Client(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", "/b", "-i", "the-holder")
	programs.AwaitHeld(t, client, "/b")
	for _, code := range []int{1, 75, 0} {
		tries := func(wait string) (stderr string) {
			p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/c", "/b", "/a"), wait, "--conflict-exit-code", strconv.Itoa(code), "echo", "ran")...)
			got := p.Code()
			stderr = slowEtcd.ReplaceAllString(p.Stderr.String(), "")
			if got != code || p.Stdout.String() != "" || (stderr != "") != (code != 0) {
				t.Errorf("%s: exit code %d, want %d; %q, %q", wait, got, code, p.Stdout, stderr)
			}
			alone(t, client, "/b")
			return stderr
		}
		if stderr := tries("--try"); code != 0 && !strings.Contains(stderr, `error: lock "/b" is held by "the-holder"`) {
			t.Errorf("--try: %q", stderr)
		}
		lateForB := regexp.MustCompile(`error: acquiring lock "/b": not acquired within [0-9a-z.]+ \(last seen: "/b" is held by "the-holder" since `)
		stderr := tries("--wait=0.3")
		// On a busy machine it may not have come so far.
		for wait := 1; code != 0 && !lateForB.MatchString(stderr) && wait <= 8; wait *= 2 {
			stderr = tries(fmt.Sprintf("--wait=%d", wait))
		}
		if code != 0 && !lateForB.MatchString(stderr) {
			t.Errorf("--wait: %q", stderr)
		}
	}
	holder.Signal(syscall.SIGTERM)
	holder.Code()
	s.Empty(t)
}

// alone checks that nothing is in etcd but a lock that is held, and its lease.
func alone(t *testing.T, client *clientv3.Client, key string) {
	t.Helper()
	for _, kv := range etcdtest.Keys(t, client, "") {
		if name := string(kv.Key); name != key && !strings.HasPrefix(name, key+"/") && name != key+"~tail" {
			t.Errorf("left in etcd: %q", name)
		}
	}
	leases, err := client.Leases(etcdtest.Context(t))
	if err != nil || len(leases.Leases) != 1 || len(etcdtest.Keys(t, client, key+"/")) != 1 {
		t.Errorf("leases %v, %v, %d places", leases, err, len(etcdtest.Keys(t, client, key+"/")))
	}
}

// TestSetSignalWhileWaiting: who is stopped while it waits for the second lock leaves nothing.
func TestSetSignalWhileWaiting(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := s.Client(t)
	programs.Locker(t, s.Endpoint(), "-k", "/b")
	programs.AwaitHeld(t, client, "/b")
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/b", "/a"), "echo", "ran")...)
	p.Says(p.Stderr, "place 1 in line")
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), `stopped by SIGTERM while waiting for locks "/a" and "/b"`) {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	alone(t, client, "/b")
}

// TestSetLost: one of the locks is taken away, and the whole tree is dead before the others are
// given back. It is said which one.
func TestSetLost(t *testing.T) {
	t.Parallel()
	keys := []string{"/a", "/b", "/c"}
	for name, take := range map[string]func(ctx context.Context, c *clientv3.Client, key string) error{
		"deleted": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Delete(ctx, key)
			return err
		},
		"overwritten": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Put(ctx, key, "by hand")
			return err
		},
		"deleted with its line": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Delete(ctx, key+"/", clientv3.WithPrefix())
			return err
		},
	} {
		for i, key := range keys {
			t.Run(name+key, func(t *testing.T) {
				t.Parallel()
				s := etcdtest.Start(t)
				client := s.Client(t)
				file := filepath.Join(t.TempDir(), "pid")
				p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/c", "/a", "/b"), "-t", "30", "--grace", "0.3", "--", "sh", "-c",
					`setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.05; done' `+file+` & trap '' TERM; while :; do sleep 0.05; done`)...)
				worker := programs.AwaitFile(t, file)
				others := programs.Locker(t, s.Endpoint(), append(programs.Keys(slices.Delete(slices.Clone(keys), i, i+1)...), "--", "sh", "-c", `! kill -0 "$0" && echo ran`, worker)...)
				others.Says(others.Stderr, "place 1 in line")
				if err := take(etcdtest.Context(t), client, key); err != nil {
					t.Fatal(err)
				}
				if code := p.Code(); code != 2 || !strings.Contains(p.Stderr.String(), fmt.Sprintf("error: lock %q lost: ", key)) {
					t.Errorf("exit code %d, %q", code, p.Stderr)
				}
				if code := others.Code(); code != 0 || others.Stdout.String() != "ran\n" {
					t.Errorf("who waits for the others: exit code %d, %q, %q", code, others.Stdout, others.Stderr)
				}
				programs.AwaitEnd(t, worker)
				// What was put there by hand.
				if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
					t.Error(err)
				}
				s.Empty(t)
			})
		}
	}
}

// TestSetNested: who asks for a lock of those that it runs under is told so, whichever that is, and
// whatever is free.
func TestSetNested(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	again := programs.Path("etcdlocker")
	for _, key := range []string{"a", "b"} {
		for name, words := range map[string][]string{"below": {again}, "without its variables": {"env", "-i", "PATH=" + os.Getenv("PATH"), again, "-e", s.Endpoint()}} {
			t.Run(name+", "+key, func(t *testing.T) {
				t.Parallel()
				prefix := "/set-nested/" + strings.ReplaceAll(name, " ", "-") + key
				inner := append(slices.Clone(words), programs.Keys(prefix+key, prefix+"1", prefix+"z")...)
				p := programs.Locker(t, s.Endpoint(), slices.Concat(programs.Keys(prefix+"b", prefix+"a"), []string{"--"}, inner, []string{"--", "echo", "ran"})...)
				if code := p.Code(); code != 1 || p.Stdout.String() != "" || !strings.Contains(p.Stderr.String(), fmt.Sprintf("lock %q is already held by the command that asks for it", prefix+key)) {
					t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
				}
				programs.CheckFree(t, s.Client(t), prefix+"1", prefix+"a", prefix+"b", prefix+"z")
			})
		}
	}
}

// TestSetHanded: what etcdlocker hands its command tells another one that the command's lock is
// meant, also where it does not run below. It is not taken for what the user says.
func TestSetHanded(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/set-handed/a", "/set-handed/no\xffutf8"), "--", "sh", "-c", `env | grep -a '^ETCD'; echo .; exec sleep 1000`)...)
	p.Says(p.Stdout, "\n.\n")
	env := strings.Split(strings.TrimSuffix(p.Stdout.String(), "\n.\n"), "\n")
	for _, key := range []string{"/set-handed/a", "/set-handed/no\xffutf8"} {
		q := programs.Start(t, env, "etcdlocker", "-k", key, "echo", "ran")
		if code := q.Code(); code != 1 || !strings.Contains(q.Stderr.String(), "is already held by the command that asks for it") {
			t.Errorf("%q: exit code %d, %q", key, code, q.Stderr)
		}
	}
	q := programs.Start(t, env, "etcdlocker", "echo", "ran")
	if code := q.Code(); code != 64 || !strings.Contains(q.Stderr.String(), "no key: which lock is meant?") {
		t.Errorf("without a key: exit code %d, %q", code, q.Stderr)
	}
	q = programs.Start(t, env, "etcdlocker", "-k", "/set-handed/other", "sh", "-c", `echo "$ETCDLOCK_HELD"`)
	if code := q.Code(); code != 0 || !strings.HasPrefix(q.Stdout.String(), `[{"key":"/set-handed/other","token":`) {
		t.Errorf("another key: exit code %d, %q, %q", code, q.Stdout, q.Stderr)
	}
}

// TestSetTakeover: the locks of a killed holder are taken at once by whoever waits for one of them
// on the same machine, or comes later.
func TestSetTakeover(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ keys, options []string }{
		"waiting for both": {[]string{"b", "a"}, nil}, "waiting for the second": {[]string{"c", "b", "0"}, nil}, "waiting for one": {[]string{"b"}, nil},
		"trying": {[]string{"a", "b"}, []string{"--try"}}, "trying the second": {[]string{"0", "b"}, []string{"--try"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, runDir := etcdtest.Shared(t), t.TempDir()
			prefix := "/set-takeover/" + strings.ReplaceAll(name, " ", "-") + "/"
			vars := []string{"XDG_RUNTIME_DIR=" + runDir}
			crashing := programs.Start(t, vars, "etcdlocker", slices.Concat([]string{"-e", s.Endpoint(), "-t", "300"}, programs.Keys(prefix+"b", prefix+"a"), []string{"--"}, programs.StubbornTree)...)
			crashing.Says(crashing.Stdout, "ready")
			words := append([]string{"-e", s.Endpoint()}, tt.options...)
			for _, key := range tt.keys {
				words = append(words, "-k", prefix+key)
			}
			next := func() *programs.Run { return programs.Start(t, vars, "etcdlocker", append(words, "echo", "ran")...) }
			var p *programs.Run
			if tt.options == nil {
				p = next()
				p.Says(p.Stderr, "place 1 in line")
			}
			crashing.Signal(syscall.SIGKILL)
			if tt.options != nil {
				etcdtest.Await(t, "the attestation", func(context.Context) error { return attestations(runDir, 1) })
				p = next()
			}
			killed := time.Now()
			if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" || !strings.Contains(p.Stderr.String(), tookOver) {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			if took := time.Since(killed); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if len(programs.Marked("ETCD_LOCK_KEY="+prefix+"a")) > 0 {
				t.Error("something of the last command still runs")
			}
			programs.CheckFree(t, s.Client(t), prefix+"0", prefix+"a", prefix+"b", prefix+"c")
		})
	}
}

// TestNoTakeoverOfAKeyByHand: a key without a lease is not taken over, whatever is attested.
func TestNoTakeoverOfAKeyByHand(t *testing.T) {
	t.Parallel()
	s, runDir := etcdtest.Shared(t), t.TempDir()
	client, key := s.Client(t), "/set-by-hand/b"
	crash(t, s, runDir, "/set-by-hand/crash", "4", false)
	etcdtest.Await(t, "the attestation", func(context.Context) error { return attestations(runDir, 1) })
	dir := filepath.Join(runDir, "etcdlock")
	files, err := filepath.Glob(filepath.Join(dir, "dead-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	lease := strings.TrimPrefix(filepath.Base(files[0]), "dead-")
	text := strings.ReplaceAll(etcdtest.Read(t, files[0]), "lease "+lease+" ", "lease 0 ")
	if err := os.WriteFile(filepath.Join(dir, "dead-0"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(etcdtest.Context(t), key, "by hand"); err != nil {
		t.Fatal(err)
	}
	p := programs.Start(t, []string{"XDG_RUNTIME_DIR=" + runDir}, "etcdlocker", append(append([]string{"-e", s.Endpoint()}, programs.Keys("/set-by-hand/a", key)...), "--try", "echo", "ran")...)
	if code := p.Code(); code != 1 || !strings.Contains(p.Stderr.String(), `is held by "by hand"`) || strings.Contains(p.Stderr.String(), tookOver) {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
}

// TestSetKilled: an etcdlocker of several keys that is killed leaves nothing that runs when the
// lease runs out, and then no key.
func TestSetKilled(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client, keys := s.Client(t), []string{"/set-killed/a", "/set-killed/b"}
	p := programs.Locker(t, s.Endpoint(), slices.Concat(programs.Keys(keys...), []string{"-t", "4", "--"}, programs.StubbornTree)...)
	p.Says(p.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, keys[0]).Kvs[0].Lease
	p.Signal(syscall.SIGKILL)
	programs.CheckEndsBefore(t, client, keys[0], lease)
	etcdtest.Await(t, "the keys to be free", func(context.Context) error {
		if left := etcdtest.Keys(t, client, "/set-killed/"); len(left) > 0 {
			return fmt.Errorf("%q", left)
		}
		return nil
	})
}

// TestSetFreezes: what stands still in doubt goes on when all locks are renewed. The message names
// them.
func TestSetFreezes(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	link, file := etcdtest.NewLink(t, s.Endpoint()), filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, link.Endpoint(), append(append(programs.Keys("/set-freeze/b", "/set-freeze/a"), "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--"), programs.UntilFile(file)...)...)
	p.Says(p.Stdout, "started")
	link.Silence()
	p.Says(p.Stderr, `locks "/set-freeze/a" and "/set-freeze/b" could not be renewed; the command stands still until they are, or dies in 14s`)
	link.Restore()
	p.Says(p.Stderr, `locks "/set-freeze/a" and "/set-freeze/b" are renewed, the command goes on`)
	programs.Create(t, file)
	if code := p.Code(); code != 4 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), "/set-freeze/a", "/set-freeze/b")
}

// TestSetHoldAtLeast: all locks are kept until their time is over, also if the command ends sooner.
func TestSetHoldAtLeast(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/b", "/a"), "--hold-at-least", "1h", "echo", "ran")...)
	p.Says(p.Stdout, "ran")
	for _, key := range []string{"/a", "/b"} {
		if code := programs.Locker(t, s.Endpoint(), "-k", key, "--try", "true").Code(); code != 1 {
			t.Errorf("%s was free before its time: exit code %d", key, code)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 || !strings.Contains(p.Stderr.String(), `after the command had ended; locks "/a" and "/b" are released`) {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	s.Empty(t)
}
