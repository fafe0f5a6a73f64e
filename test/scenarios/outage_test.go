//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// outages are the ways in which a network keeps etcd away.
var outages = map[string]func(*etcdtest.Link){"silent": (*etcdtest.Link).Silence, "refused": (*etcdtest.Link).Refuse}

// slack is what a loaded machine may add to the times that are promised.
const slack = 20 * time.Second

// untilFile is a command that runs until a file is there, and then ends with code 4.
func untilFile(file string) []string {
	return []string{"sh", "-c", `echo started; while [ ! -e ` + file + ` ]; do sleep 0.05; done; exit 4`}
}

func create(t testing.TB, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestSilence: etcd goes away for good; the stubborn command is dead before etcd frees the lock,
// and the code is 2.
func TestSilence(t *testing.T) {
	t.Parallel()
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			link, client, key := etcdtest.NewLink(t, s.Endpoint()), s.Client(t), "/silence/"+name
			file := filepath.Join(t.TempDir(), "beat")
			p := locker(t, link.Endpoint(), "-k", key, "-t", "4", "--", "sh", "-c", `trap '' TERM; echo $$ > `+file+`; while :; do sleep 0.05; done`)
			pid := content(t, file)
			lease := held(t, client, key).Kvs[0].Lease
			fault(link)
			endsBefore(t, client, key, lease)
			gone(t, pid)
			if code := p.code(); code != 2 {
				t.Errorf("exit code %d: %s", code, p.stderr)
			}
		})
	}
}

// TestEndsWhileEtcdIsDown: the command's code, in time, and a word on when the lock, or several,
// will be free.
func TestEndsWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	const unconfirmed = "etcd did not confirm the release, "
	for name, fault := range outages {
		key := "/down/" + name
		for says, keys := range map[string][]string{"it frees itself": {key}, "they free themselves": {key + "-b", key + "-a"}} {
			t.Run(name+", "+says, func(t *testing.T) {
				t.Parallel()
				s := etcdtest.Shared(t)
				link, file := etcdtest.NewLink(t, s.Endpoint()), filepath.Join(t.TempDir(), "go")
				p := locker(t, link.Endpoint(), append(append(keysOf(keys...), "-t", "60", "--"), untilFile(file)...)...)
				p.says(p.stdout, "started")
				fault(link)
				create(t, file)
				ended := time.Now()
				if code := p.code(); code != 4 || !strings.Contains(p.stderr.String(), unconfirmed+says+" within 1m0s") {
					t.Errorf("exit code %d, %q", code, p.stderr)
				}
				if took := time.Since(ended); took > 2*time.Second+slack {
					t.Errorf("it took %v to end", took)
				}
			})
		}
	}
}

// TestAwayWhileWaiting: etcd is away for so long that the place in line is lost, and then it is
// back.
func TestAwayWhileWaiting(t *testing.T) {
	t.Parallel()
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			link, client, key := etcdtest.NewLink(t, s.Endpoint()), s.Client(t), "/away/"+name
			holder := locker(t, s.Endpoint(), "-k", key)
			held(t, client, key)
			waiter := locker(t, link.Endpoint(), "-k", key, "-t", "2", "echo", "ran")
			waiter.says(waiter.stderr, "place 1 in line")
			fault(link)
			etcdtest.Await(t, "the place to be lost", func(context.Context) error {
				if n := len(etcdtest.Keys(t, client, key+"/")); n != 1 {
					return fmt.Errorf("%d in line", n)
				}
				return nil
			})
			holder.signal(syscall.SIGTERM)
			holder.code()
			back := time.Now()
			link.Restore()
			waiter.says(waiter.stdout, "ran")
			if took := time.Since(back); took > time.Second+slack {
				t.Errorf("it joined again after %v", took)
			}
			if code := waiter.code(); code != 0 || !strings.Contains(waiter.stderr.String(), "place in line lost") {
				t.Errorf("exit code %d, %q", code, waiter.stderr)
			}
			free(t, client, key)
		})
	}
}

// TestHeldThroughARestart: 3 s without etcd cost nothing with a TTL of 10 s.
func TestHeldThroughARestart(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "go")
	p := locker(t, etcd.Endpoint(), append([]string{"-v", "-t", "10", "-r", "1", "-k", "/restart", "--"}, untilFile(file)...)...)
	p.says(p.stdout, "started")
	p.says(p.stderr, "lease renewed")
	token := held(t, etcd.Client(t), "/restart").Kvs[0].ModRevision
	etcd.Kill()
	time.Sleep(3 * time.Second) // the outage
	etcd.Restart()
	p.renews(2)
	if now := held(t, etcd.Client(t), "/restart").Kvs[0].ModRevision; now != token {
		t.Errorf("token %d, then %d", token, now)
	}
	create(t, file)
	if code := p.code(); code != 4 || strings.Contains(p.stderr.String(), "lost") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	free(t, etcd.Client(t), "/restart")
}

// TestWiped: etcd comes back empty. The holder has lost the lock, the waiter gets it.
func TestWiped(t *testing.T) {
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "pid")
	holder := locker(t, etcd.Endpoint(), "-k", "/wiped", "--", "sh", "-c", `trap '' TERM; echo $$ > `+file+`; while :; do sleep 0.05; done`)
	pid := content(t, file)
	waiter := locker(t, etcd.Endpoint(), "-k", "/wiped", "echo", "ran")
	waiter.says(waiter.stderr, "place 1 in line")
	etcd.Wipe()
	if code := holder.code(); code != 2 || !strings.Contains(holder.stderr.String(), "etcd lost its data") && !strings.Contains(holder.stderr.String(), "wiped") {
		t.Errorf("the holder: exit code %d, %q", code, holder.stderr)
	}
	gone(t, pid)
	if code := waiter.code(); code != 0 || waiter.stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %q", code, waiter.stderr)
	}
	free(t, etcd.Client(t), "/wiped")
}

// TestEndsAfterAWipe: what the command did last it did without a lock; its own code must not hide
// that.
func TestEndsAfterAWipe(t *testing.T) {
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "go")
	p := locker(t, etcd.Endpoint(), append([]string{"-t", "60", "-k", "/wiped", "--"}, untilFile(file)...)...)
	p.says(p.stdout, "started")
	etcd.Wipe()
	create(t, file)
	if code := p.code(); code != 2 {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	free(t, etcd.Client(t), "/wiped")
}

// TestCompacted: compaction disturbs neither a holder nor a waiter.
func TestCompacted(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	file := filepath.Join(t.TempDir(), "go")
	holder := locker(t, s.Endpoint(), append([]string{"-v", "-r", "0.2", "-k", "/compacted", "--"}, untilFile(file)...)...)
	holder.says(holder.stdout, "started")
	waiter := locker(t, s.Endpoint(), "-v", "-r", "0.2", "-k", "/compacted", "echo", "ran")
	waiter.says(waiter.stderr, "place 1 in line")
	resp, err := client.Put(ctx, "/else", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(ctx, resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	waiter.renews(2)
	create(t, file)
	if code := holder.code(); code != 4 {
		t.Errorf("the holder: exit code %d, %q", code, holder.stderr)
	}
	if code := waiter.code(); code != 0 {
		t.Errorf("the waiter: exit code %d, %q", code, waiter.stderr)
	}
}

// TestSilenceWithAStoppedGuard: the guard cannot act, so etcdlocker ends the tree, also what is in
// a session of its own.
func TestSilenceWithAStoppedGuard(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	link, client := etcdtest.NewLink(t, s.Endpoint()), s.Client(t)
	p := locker(t, link.Endpoint(), append([]string{"-t", "4", "-k", "/stopped-guard", "--"}, stubbornTree...)...)
	p.says(p.stdout, "ready")
	lease := held(t, client, "/stopped-guard").Kvs[0].Lease
	link.Silence()
	if err := syscall.Kill(guardOf(t, p), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	endsBefore(t, client, "/stopped-guard", lease)
	if code := p.code(); code != 2 {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}

// TestFreeze: in doubt the command stands still, and goes on when the doubt is over.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			freezeAndThaw(t, "/freeze/"+name, uid)
		})
	}
}

func freezeAndThaw(t *testing.T, key string, uid uint32) {
	s, dir := etcdtest.Shared(t), openDir(t)
	link, file := etcdtest.NewLink(t, s.Endpoint()), filepath.Join(dir, "go")
	beats := [2]string{filepath.Join(dir, "own"), filepath.Join(dir, "worker's")}
	command := []string{"sh", "-c", `setsid sh -c 'while :; do echo >> "$0"; sleep 0.01; done' "$1" > /dev/null 2>&1 & worker=$!
		echo started; while [ ! -e "$2" ]; do echo >> "$0"; sleep 0.01; done; kill $worker; exit 4`, beats[0], beats[1], file}
	p := lockerOf(t, uid, nil, link.Endpoint(), append([]string{"-k", key, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--"}, command...)...)
	p.says(p.stdout, "started")
	link.Silence()
	p.says(p.stderr, "the command stands still")
	for _, file := range beats {
		etcdtest.Await(t, "everything to stand still", func(context.Context) error { return unchanged(file) })
	}
	create(t, file) // nobody looks
	link.Restore()
	p.says(p.stderr, "the command goes on")
	if code := p.code(); code != 4 {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
	free(t, s.Client(t), key)
}

// unchanged returns an error if a file grows within 20 times the time that it usually takes.
func unchanged(file string) error {
	before, err := os.Stat(file)
	if err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	after, err := os.Stat(file)
	if err == nil && after.Size() != before.Size() {
		err = errors.New("it grows")
	}
	return err
}

// TestFreezeAWaiter: an etcdlocker below another one waits for its lock while all of it stands
// still. Its command runs when it has the lock.
func TestFreezeAWaiter(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, outer, inner := etcdtest.Shared(t), "/freeze-a-waiter/outer/"+name, "/freeze-a-waiter/inner/"+name
			link := etcdtest.NewLink(t, s.Endpoint())
			holder := locker(t, s.Endpoint(), "-k", inner, "sleep", "1000")
			held(t, s.Client(t), inner)
			p := lockerOf(t, uid, nil, link.Endpoint(), "-k", outer, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--",
				filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-k", inner, "-t", "60", "--", "sh", "-c", "echo ran; exit 4")
			p.says(p.stderr, "place 1 in line")
			link.Silence()
			p.says(p.stderr, "the command stands still")
			link.Restore()
			p.says(p.stderr, "the command goes on")
			holder.signal(syscall.SIGTERM)
			if code := p.code(); code != 4 || p.stdout.String() != "ran\n" {
				t.Errorf("exit code %d, %q, %q", code, p.stdout, p.stderr)
			}
		})
	}
}

// TestFrozenBefore: a control group that somebody has frozen before there was a command in it does
// not keep the command from being executed.
func TestFrozenBefore(t *testing.T) {
	t.Parallel()
	testGroup(t)
	s, key := etcdtest.Shared(t), "/frozen-before"
	holder := locker(t, s.Endpoint(), "-k", key, "sleep", "1000")
	held(t, s.Client(t), key)
	p := locker(t, s.Endpoint(), "-k", key, "--", "sh", "-c", "exit 4")
	p.says(p.stderr, "place 1 in line")
	mount, err := cgroupMount()
	if err != nil {
		t.Fatal(err)
	}
	etcdtest.Await(t, "the group", func(context.Context) error {
		// The pattern is right.
		groups, _ := filepath.Glob(fmt.Sprintf("%s/%s%d-*", mount, cgroup.Prefix, p.cmd.Process.Pid))
		if len(groups) != 1 {
			return fmt.Errorf("there are %q", groups)
		}
		return os.WriteFile(groups[0]+"/cgroup.freeze", []byte("1"), 0)
	})
	holder.signal(syscall.SIGTERM)
	if code := p.code(); code != 4 {
		t.Errorf("exit code %d, %q, %q", code, p.stdout, p.stderr)
	}
}

// TestFreezeForGood: no renewal comes, so what stands still is killed before etcd frees the lock,
// without going on for a moment: it would do what it does when it is asked to end. With the control
// group that root's commands have, and without.
func TestFreezeForGood(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := etcdtest.Shared(t), filepath.Join(openDir(t), "asked")
			link, client, key := etcdtest.NewLink(t, s.Endpoint()), s.Client(t), "/frozen/"+name
			p := lockerOf(t, uid, nil, link.Endpoint(), "-k", key, "-t", "4", "--on-doubt=freeze", "--", "sh", "-c",
				`trap 'echo > "$0"' TERM; echo ready; while :; do sleep 0.05; done`, asked)
			p.says(p.stdout, "ready")
			lease := held(t, client, key).Kvs[0].Lease
			link.Silence()
			p.says(p.stderr, "the command stands still")
			endsBefore(t, client, key, lease)
			if code := p.code(); code != 2 {
				t.Errorf("exit code %d, %q", code, p.stderr)
			}
			if _, err := os.Stat(asked); err == nil {
				t.Error("it was asked to end, and went on for that")
			}
		})
	}
}

// TestFreezeLeavesTheStopped: what was stopped before is stopped after, and what tells the command
// to stop meanwhile reaches it when it goes on.
func TestFreezeLeavesTheStopped(t *testing.T) {
	t.Parallel()
	for name, uid := range users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, file := etcdtest.Shared(t), filepath.Join(openDir(t), "pid")
			link := etcdtest.NewLink(t, s.Endpoint())
			p := lockerOf(t, uid, nil, link.Endpoint(), "-k", "/freeze-stopped/"+name, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--", "sh", "-c",
				`trap 'grep State "/proc/$!/status"; kill -KILL $!; exit 5' TERM; sleep 1000 & kill -STOP $!; echo $! > "$0"; while :; do sleep 0.05; done`, file)
			content(t, file)
			link.Silence()
			p.says(p.stderr, "the command stands still")
			p.signal(syscall.SIGTERM)
			link.Restore()
			p.says(p.stderr, "the command goes on")
			if code := p.code(); code != 143 || !strings.Contains(p.stdout.String(), "stopped") {
				t.Errorf("exit code %d, the stopped one is %q, %q", code, p.stdout, p.stderr)
			}
		})
	}
}
