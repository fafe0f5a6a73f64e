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
	"github.com/etcdlock/etcdlock/test/programs"
)

// outages are the ways in which a network keeps etcd away.
var outages = map[string]func(*etcdtest.Link){"silent": (*etcdtest.Link).Silence, "refused": (*etcdtest.Link).Refuse}

// slack is what a loaded machine may add to the times that are promised.
const slack = 20 * time.Second

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
			p := programs.Locker(t, link.Endpoint(), "-k", key, "-t", "4", "--", "sh", "-c", `trap '' TERM; echo $$ > `+file+`; while :; do sleep 0.05; done`)
			pid := programs.AwaitFile(t, file)
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			fault(link)
			programs.CheckEndsBefore(t, client, key, lease)
			programs.AwaitEnd(t, pid)
			if code := p.Code(); code != 2 {
				t.Errorf("exit code %d: %s", code, p.Stderr)
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
				p := programs.Locker(t, link.Endpoint(), append(append(programs.Keys(keys...), "-t", "60", "--"), programs.UntilFile(file)...)...)
				p.Says(p.Stdout, "started")
				fault(link)
				programs.Create(t, file)
				ended := time.Now()
				if code := p.Code(); code != 4 || !strings.Contains(p.Stderr.String(), unconfirmed+says+" within 1m0s") {
					t.Errorf("exit code %d, %q", code, p.Stderr)
				}
				if took := time.Since(ended); took > 2*time.Second+slack {
					t.Errorf("it took %v to end", took)
				}
			})
		}
		t.Run(name+", told to stop", func(t *testing.T) {
			t.Parallel()
			link := etcdtest.NewLink(t, etcdtest.Shared(t).Endpoint())
			p := programs.Locker(t, link.Endpoint(), "-k", key+"-c", "-t", "60", "--", "sh", "-c", "echo started; exec sleep 1000")
			p.Says(p.Stdout, "started")
			fault(link)
			p.Signal(syscall.SIGTERM)
			says := fmt.Sprintf("stopped by SIGTERM, and with it the command; lock %q frees itself within 1m0s\n", key+"-c")
			if code := p.Code(); code != 143 || !strings.Contains(p.Stderr.String(), says) || strings.Contains(p.Stderr.String(), "released") {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
		})
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
			holder := programs.Locker(t, s.Endpoint(), "-k", key)
			programs.AwaitHeld(t, client, key)
			waiter := programs.Locker(t, link.Endpoint(), "-k", key, "-t", "2", "echo", "ran")
			waiter.Says(waiter.Stderr, "place 1 in line")
			fault(link)
			etcdtest.Await(t, "the place to be lost", func(context.Context) error {
				if n := len(etcdtest.Keys(t, client, key+"/")); n != 1 {
					return fmt.Errorf("%d in line", n)
				}
				return nil
			})
			holder.Signal(syscall.SIGTERM)
			holder.Code()
			back := time.Now()
			link.Restore()
			waiter.Says(waiter.Stdout, "ran")
			if took := time.Since(back); took > time.Second+slack {
				t.Errorf("it joined again after %v", took)
			}
			if code := waiter.Code(); code != 0 || !strings.Contains(waiter.Stderr.String(), "place in line lost") {
				t.Errorf("exit code %d, %q", code, waiter.Stderr)
			}
			programs.CheckFree(t, client, key)
		})
	}
}

// TestHeldThroughARestart: 3 s without etcd cost nothing with a TTL of 10 s.
func TestHeldThroughARestart(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, etcd.Endpoint(), append([]string{"-v", "-t", "10", "-r", "1", "-k", "/restart", "--"}, programs.UntilFile(file)...)...)
	p.Says(p.Stdout, "started")
	p.Says(p.Stderr, "lease renewed")
	token := programs.AwaitHeld(t, etcd.Client(t), "/restart").Kvs[0].ModRevision
	etcd.Kill()
	time.Sleep(3 * time.Second) // the outage
	etcd.Restart()
	p.Renews(2)
	if now := programs.AwaitHeld(t, etcd.Client(t), "/restart").Kvs[0].ModRevision; now != token {
		t.Errorf("token %d, then %d", token, now)
	}
	programs.Create(t, file)
	if code := p.Code(); code != 4 || strings.Contains(p.Stderr.String(), "lost") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, etcd.Client(t), "/restart")
}

// TestWiped: etcd comes back empty. The holder has lost the lock, the waiter gets it.
func TestWiped(t *testing.T) {
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "pid")
	holder := programs.Locker(t, etcd.Endpoint(), "-k", "/wiped", "--", "sh", "-c", `trap '' TERM; echo $$ > `+file+`; while :; do sleep 0.05; done`)
	pid := programs.AwaitFile(t, file)
	waiter := programs.Locker(t, etcd.Endpoint(), "-k", "/wiped", "echo", "ran")
	waiter.Says(waiter.Stderr, "place 1 in line")
	etcd.Wipe()
	if code := holder.Code(); code != 2 || !strings.Contains(holder.Stderr.String(), "etcd lost its data") && !strings.Contains(holder.Stderr.String(), "wiped") {
		t.Errorf("the holder: exit code %d, %q", code, holder.Stderr)
	}
	programs.AwaitEnd(t, pid)
	if code := waiter.Code(); code != 0 || waiter.Stdout.String() != "ran\n" {
		t.Errorf("the waiter: exit code %d, %q", code, waiter.Stderr)
	}
	programs.CheckFree(t, etcd.Client(t), "/wiped")
}

// TestEndsAfterAWipe: what the command did last it did without a lock; its own code must not hide
// that.
func TestEndsAfterAWipe(t *testing.T) {
	etcd := etcdtest.StartProcess(t)
	file := filepath.Join(t.TempDir(), "go")
	p := programs.Locker(t, etcd.Endpoint(), append([]string{"-t", "60", "-k", "/wiped", "--"}, programs.UntilFile(file)...)...)
	p.Says(p.Stdout, "started")
	etcd.Wipe()
	programs.Create(t, file)
	if code := p.Code(); code != 2 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, etcd.Client(t), "/wiped")
}

// TestCompacted: compaction disturbs neither a holder nor a waiter.
func TestCompacted(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	file := filepath.Join(t.TempDir(), "go")
	holder := programs.Locker(t, s.Endpoint(), append([]string{"-v", "-r", "0.2", "-k", "/compacted", "--"}, programs.UntilFile(file)...)...)
	holder.Says(holder.Stdout, "started")
	waiter := programs.Locker(t, s.Endpoint(), "-v", "-r", "0.2", "-k", "/compacted", "echo", "ran")
	waiter.Says(waiter.Stderr, "place 1 in line")
	resp, err := client.Put(ctx, "/else", "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Compact(ctx, resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	waiter.Renews(2)
	programs.Create(t, file)
	if code := holder.Code(); code != 4 {
		t.Errorf("the holder: exit code %d, %q", code, holder.Stderr)
	}
	if code := waiter.Code(); code != 0 {
		t.Errorf("the waiter: exit code %d, %q", code, waiter.Stderr)
	}
}

// TestSilenceWithAStoppedGuard: the guard cannot act, so etcdlocker ends the tree, also what is in
// a session of its own.
func TestSilenceWithAStoppedGuard(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	link, client := etcdtest.NewLink(t, s.Endpoint()), s.Client(t)
	p := programs.Locker(t, link.Endpoint(), append([]string{"-t", "4", "-k", "/stopped-guard", "--"}, programs.StubbornTree...)...)
	p.Says(p.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, "/stopped-guard").Kvs[0].Lease
	link.Silence()
	if err := syscall.Kill(programs.GuardOf(t, p), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	programs.CheckEndsBefore(t, client, "/stopped-guard", lease)
	if code := p.Code(); code != 2 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestFreeze: in doubt the command stands still, and goes on when the doubt is over.
func TestFreeze(t *testing.T) {
	t.Parallel()
	for name, uid := range programs.Users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			freezeAndThaw(t, "/freeze/"+name, uid)
		})
	}
}

func freezeAndThaw(t *testing.T, key string, uid uint32) {
	s, dir := etcdtest.Shared(t), programs.OpenDir(t)
	link, file := etcdtest.NewLink(t, s.Endpoint()), filepath.Join(dir, "go")
	beats := [2]string{filepath.Join(dir, "own"), filepath.Join(dir, "worker's")}
	command := []string{"sh", "-c", `setsid sh -c 'while :; do echo >> "$0"; sleep 0.01; done' "$1" > /dev/null 2>&1 & worker=$!
		echo started; while [ ! -e "$2" ]; do echo >> "$0"; sleep 0.01; done; kill $worker; exit 4`, beats[0], beats[1], file}
	p := programs.LockerOf(t, uid, nil, link.Endpoint(), append([]string{"-k", key, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--"}, command...)...)
	p.Says(p.Stdout, "started")
	link.Silence()
	p.Says(p.Stderr, "the command stands still")
	for _, file := range beats {
		etcdtest.Await(t, "everything to stand still", func(context.Context) error { return unchanged(file) })
	}
	programs.Create(t, file) // nobody looks
	link.Restore()
	p.Says(p.Stderr, "the command goes on")
	if code := p.Code(); code != 4 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
	programs.CheckFree(t, s.Client(t), key)
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
	for name, uid := range programs.Users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, outer, inner := etcdtest.Shared(t), "/freeze-a-waiter/outer/"+name, "/freeze-a-waiter/inner/"+name
			link := etcdtest.NewLink(t, s.Endpoint())
			holder := programs.Locker(t, s.Endpoint(), "-k", inner, "sleep", "1000")
			programs.AwaitHeld(t, s.Client(t), inner)
			p := programs.LockerOf(t, uid, nil, link.Endpoint(), "-k", outer, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--",
				programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", inner, "-t", "60", "--", "sh", "-c", "echo ran; exit 4")
			p.Says(p.Stderr, "place 1 in line")
			link.Silence()
			p.Says(p.Stderr, "the command stands still")
			link.Restore()
			p.Says(p.Stderr, "the command goes on")
			holder.Signal(syscall.SIGTERM)
			if code := p.Code(); code != 4 || p.Stdout.String() != "ran\n" {
				t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
			}
		})
	}
}

// TestFrozenBefore: a control group that somebody has frozen before there was a command in it does
// not keep the command from being executed.
func TestFrozenBefore(t *testing.T) {
	t.Parallel()
	programs.ControlGroup(t)
	s, key := etcdtest.Shared(t), "/frozen-before"
	holder := programs.Locker(t, s.Endpoint(), "-k", key, "sleep", "1000")
	programs.AwaitHeld(t, s.Client(t), key)
	p := programs.Locker(t, s.Endpoint(), "-k", key, "--", "sh", "-c", "exit 4")
	p.Says(p.Stderr, "place 1 in line")
	mount, err := programs.ControlGroups()
	if err != nil {
		t.Fatal(err)
	}
	etcdtest.Await(t, "the group", func(context.Context) error {
		// The pattern is right.
		groups, _ := filepath.Glob(fmt.Sprintf("%s/%s%d-*", mount, cgroup.Prefix, p.Cmd.Process.Pid))
		if len(groups) != 1 {
			return fmt.Errorf("there are %q", groups)
		}
		return os.WriteFile(groups[0]+"/cgroup.freeze", []byte("1"), 0)
	})
	holder.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 4 {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
}

// TestFreezeForGood: no renewal comes, so what stands still is killed before etcd frees the lock,
// without going on for a moment: it would do what it does when it is asked to end. With the control
// group that root's commands have, and without.
func TestFreezeForGood(t *testing.T) {
	t.Parallel()
	for name, uid := range programs.Users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, asked := etcdtest.Shared(t), filepath.Join(programs.OpenDir(t), "asked")
			link, client, key := etcdtest.NewLink(t, s.Endpoint()), s.Client(t), "/frozen/"+name
			p := programs.LockerOf(t, uid, nil, link.Endpoint(), "-k", key, "-t", "4", "--on-doubt=freeze", "--", "sh", "-c",
				`trap 'echo > "$0"' TERM; echo ready; while :; do sleep 0.05; done`, asked)
			p.Says(p.Stdout, "ready")
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			link.Silence()
			p.Says(p.Stderr, "the command stands still")
			programs.CheckEndsBefore(t, client, key, lease)
			if code := p.Code(); code != 2 {
				t.Errorf("exit code %d, %q", code, p.Stderr)
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
	for name, uid := range programs.Users() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, file := etcdtest.Shared(t), filepath.Join(programs.OpenDir(t), "pid")
			link := etcdtest.NewLink(t, s.Endpoint())
			p := programs.LockerOf(t, uid, nil, link.Endpoint(), "-k", "/freeze-stopped/"+name, "-t", "20", "-r", "1", "--grace", "14", "--on-doubt=freeze", "--", "sh", "-c",
				`trap 'grep State "/proc/$!/status"; kill -KILL $!; exit 5' TERM; sleep 1000 & kill -STOP $!; echo $! > "$0"; while :; do sleep 0.05; done`, file)
			programs.AwaitFile(t, file)
			link.Silence()
			p.Says(p.Stderr, "the command stands still")
			p.Signal(syscall.SIGTERM)
			link.Restore()
			p.Says(p.Stderr, "the command goes on")
			if code := p.Code(); code != 143 || !strings.Contains(p.Stdout.String(), "stopped") {
				t.Errorf("exit code %d, the stopped one is %q, %q", code, p.Stdout, p.Stderr)
			}
		})
	}
}
