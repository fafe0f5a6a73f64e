//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
	"github.com/etcdlock/etcdlock/test/stubborn"
)

// roleVariable makes the test binary play a part in a command's tree that no shell can play.
const roleVariable = "ETCDLOCK_TEST_ROLE"

// play plays the part. It does not return.
func play(role string) {
	playScreen(role)
	playNotifier(role)
	playFiller(role)
	playRefuser(role)
	stubborn.Play(role, func(err error) { fmt.Println("ready", err) })
	os.Exit(1)
}

// manyProcesses is a tree that keeps a machine busy, so nothing runs beside it.
const manyProcesses = "forks while it is killed"

// stubbornTrees are commands that do not want to end. They say when they are ready, as do the parts
// in package stubborn, which the test binary plays.
var stubbornTrees = map[string]string{
	manyProcesses:       `trap '' TERM; i=0; while [ $i -lt 400 ]; do setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' > /dev/null 2>&1 & i=$((i+1)); [ $i = 50 ] && echo ready; done; wait`,
	"double forks":      `trap '' TERM; for i in 1 2 3; do (setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' > /dev/null 2>&1 &); done; sleep 0.1; echo ready; while :; do sleep 0.05; done`,
	"closes everything": `trap '' TERM; echo ready; exec 0<&- 1>&- 2>&-; setsid sleep 1000 & while :; do sleep 0.05; done`,
	"is stopped":        `sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$; sleep 1000`,
	"has another name":  `bash -c 'exec -a sshd sleep 1000' & echo ready; exec sleep 1000`,
}

// A hand is what ends a tree: etcdlocker when the lock is taken away by force, the guard when
// etcdlocker is killed. Root's trees are in a control group by then. Those of others have none, and
// are found by the walk over descendants alone.
type hand struct {
	name         string
	guard, group bool
}

// TestStubbornTrees: they all die, by every hand.
func TestStubbornTrees(t *testing.T) {
	self := reachable(t)
	hands := []hand{{"etcdlocker, walk", false, false}, {"guard, walk", true, false},
		{"etcdlocker, group", false, true}, {"guard, group", true, true}}
	commands := map[string][]string{}
	for name, script := range stubbornTrees {
		commands[name] = []string{"sh", "-c", script}
	}
	for name := range stubborn.Parts {
		// Not the command itself, which is found without looking.
		commands[name] = []string{"sh", "-c", `"$0" & wait`, self}
	}
	for name, command := range commands {
		for _, hand := range hands {
			if hand.group && name == "outlives its main thread" {
				continue // the kernel does not put it into a group any more
			}
			t.Run(name+"/"+hand.name, func(t *testing.T) {
				if hand.group && os.Geteuid() != 0 {
					etcdtest.Missing(t, "root")
				}
				if name != manyProcesses {
					t.Parallel()
				}
				endStubbornTree(t, name, command, hand)
			})
		}
	}
}

func endStubbornTree(t *testing.T, name string, command []string, hand hand) {
	s := etcdtest.Shared(t)
	client, key := s.Client(t), "/stubborn/"+strings.ReplaceAll(name+"/"+hand.name, " ", "-")
	uid := uint32(programs.Nobody)
	if hand.group {
		uid = 0
	}
	vars := []string{roleVariable + "=" + name}
	p := programs.LockerOf(t, uid, vars, s.Endpoint(), append([]string{"-t", "300", "-k", key, "--"}, command...)...)
	p.Says(p.Stdout, "ready")
	lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
	if hand.group {
		etcdtest.Await(t, "the tree to be in its group", func(context.Context) error { return inGroup(t, key, p.Cmd.Process.Pid) })
	}
	before := time.Now()
	if hand.guard {
		p.Signal(syscall.SIGKILL)
	} else if _, err := client.Revoke(etcdtest.Context(t), clientv3.LeaseID(lease)); err != nil {
		t.Fatal(err)
	}
	programs.AwaitTreeEnd(t, key)
	if took := time.Since(before); took > 2*time.Minute {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("dead after %v", took)
	}
	if hand.guard && !programs.HasLease(t, client, lease) {
		t.Error("the lease had run out before the tree was dead")
	}
	if code := p.Code(); !hand.guard && code != 2 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// inGroup returns an error unless everything that runs under a lock is in the control group that is
// named after its etcdlocker.
func inGroup(t testing.TB, key string, locker int) error {
	all := programs.Marked("ETCD_LOCK_KEY=" + key)
	for pid, dir := range all {
		group, err := os.ReadFile(dir + "/cgroup")
		if err == nil && !strings.Contains(string(group), fmt.Sprintf("/etcdlocker-%d-", locker)) {
			return fmt.Errorf("process %d is in %s", pid, group)
		}
	}
	if len(all) == 0 {
		return errors.New("nothing runs")
	}
	return nil
}

// reachable returns a name of the test binary that other users may execute.
func reachable(t *testing.T) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(programs.OpenDir(t), "test-binary")
	if err := os.WriteFile(file, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestControlGroup: a command is born in a control group of its own where that is possible: as
// root, and as a user to whom a group was delegated. Nothing is left of it afterwards.
func TestControlGroup(t *testing.T) {
	parent := programs.ControlGroup(t)
	for _, file := range []string{"", "/cgroup.procs", "/cgroup.subtree_control"} {
		if err := os.Chown(parent+file, programs.Nobody, programs.Nobody); err != nil {
			t.Fatal(err)
		}
	}
	s := etcdtest.Shared(t)
	for name, tt := range map[string]struct {
		delegated bool
		uid       uint32
		group     bool
	}{
		"as root":              {false, 0, true},
		"in a delegated group": {true, programs.Nobody, true},
		"without the right to": {false, programs.Nobody, false},
	} {
		t.Run(name, func(t *testing.T) {
			key := "/group/" + strings.Fields(name)[0]
			cmd := exec.Command(programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "--", "sh", "-c",
				`setsid sleep 1000 > /dev/null 2>&1 & while :; do grep ^0:: /proc/self/cgroup /proc/$!/cgroup; sleep 0.05; done`)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			if tt.delegated {
				dir, err := os.Open(parent)
				if err != nil {
					t.Fatal(err)
				}
				defer dir.Close()
				cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
			}
			p := programs.StartCommand(t, nil, cmd)
			name := fmt.Sprintf("/etcdlocker-%d-", cmd.Process.Pid)
			etcdtest.Await(t, "some rounds", func(context.Context) error {
				if strings.Count(p.Stdout.String(), "\n") < 20 {
					return errors.New(p.Stdout.String())
				}
				return nil
			})
			for line := range strings.Lines(p.Stdout.String()) {
				if strings.Contains(line, name) != tt.group && strings.HasSuffix(line, "\n") {
					t.Errorf("it has a group: %v, want %v: %s", !tt.group, tt.group, line)
				}
			}
			p.Signal(syscall.SIGKILL)
			programs.AwaitTreeEnd(t, key)
			p.Code()
			etcdtest.Await(t, "the group to go", func(context.Context) error {
				if groups, _ := filepath.Glob(parent + "/etcdlocker-*"); len(groups) > 0 {
					return fmt.Errorf("left: %v", groups)
				}
				return nil
			})
		})
	}
}
