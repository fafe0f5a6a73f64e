//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// lockerIn runs etcdlocker in a control group.
func lockerIn(t testing.TB, group, endpoint string, args ...string) *program {
	t.Helper()
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(filepath.Join(programs, "etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return startCommand(t, nil, cmd)
}

// groupsBelow returns the control groups that etcdlockers have made below a group, at whatever
// depth, parents first.
func groupsBelow(t testing.TB, group string) (dirs []string) {
	t.Helper()
	err := filepath.WalkDir(group, func(dir string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has gone meanwhile
			return nil
		case err == nil && d.IsDir() && strings.HasPrefix(d.Name(), cgroup.Prefix):
			dirs = append(dirs, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// TestKilledGroup: some kernels kill what is born in a group if its parent has ever been killed by
// cgroup.kill. The command is executed all the same, once.
func TestKilledGroup(t *testing.T) {
	t.Parallel()
	parent := testGroup(t)
	if err := os.WriteFile(filepath.Join(parent, "cgroup.kill"), []byte("1"), 0); err != nil {
		etcdtest.Skip(t, "no cgroup.kill, which is Linux 5.14's")
	}
	s := etcdtest.Shared(t)
	// Born there, it would be killed itself.
	cmd := exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, parent,
		filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-k", "/group-killed", "--", "sh", "-c", "echo executed; exit 7")
	p := startCommand(t, nil, cmd)
	if code := p.code(); code != 7 || p.stdout.String() != "executed\n" {
		t.Errorf("exit code %d, %q, %q", code, p.stdout, p.stderr)
	}
}

// TestGroupRefused: if the kernel refuses to start the command in its control group, here because
// the group was removed meanwhile, the command is executed all the same: once, outside of the
// group, and it dies with its etcdlocker.
func TestGroupRefused(t *testing.T) {
	t.Parallel()
	parent := testGroup(t)
	s := etcdtest.Shared(t)
	const key = "/group-refused"
	before := locker(t, s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	p := lockerIn(t, parent, s.Endpoint(), "-k", key, "--", "sh", "-c", "echo executed; cat /proc/self/cgroup; echo ready; while :; do sleep 0.05; done")
	etcdtest.Await(t, "the group", func(context.Context) error {
		groups := groupsBelow(t, parent)
		if len(groups) == 0 {
			return errors.New("none")
		}
		// The guard must have opened it, or it would do without from the start.
		if err := isOpen(guardOf(t, p), groups[0]); err != nil {
			return err
		}
		return syscall.Rmdir(groups[0])
	})
	before.signal(syscall.SIGTERM)
	p.says(p.stdout, "ready")
	if said := p.stdout.String(); strings.Count(said, "executed") != 1 || !strings.Contains(said, "0::/"+filepath.Base(parent)+"\n") {
		t.Errorf("the command says %q, and etcdlocker %q", said, p.stderr)
	}
	p.signal(syscall.SIGKILL)
	treeGone(t, key)
}

// isOpen returns nil if a process has a directory open.
func isOpen(pid int, dir string) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return err
	}
	for _, file := range files {
		if link, err := os.Readlink(file); err == nil && strings.HasSuffix(link, "/"+filepath.Base(dir)) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not have %s open", pid, dir)
}

// TestNestedGroups: of etcdlockers that run one below the other no control group is left.
func TestNestedGroups(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, p *program, parent, finish string){
		"they end": func(t *testing.T, p *program, _, finish string) {
			if err := os.WriteFile(finish, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if code := p.code(); code != 0 {
				t.Errorf("exit code %d: %s", code, p.stderr)
			}
		},
		"the outermost etcdlocker is killed": func(t *testing.T, p *program, _, _ string) { p.signal(syscall.SIGKILL) },
		// Then another guard removes the groups, once they are old.
		"everything is killed": func(t *testing.T, p *program, parent, _ string) {
			outermost := groupsBelow(t, parent)[0]
			// Neither of these can do anything meanwhile.
			guard := guardOf(t, p)
			p.signal(syscall.SIGSTOP)
			syscall.Kill(guard, syscall.SIGSTOP)
			if err := os.WriteFile(filepath.Join(outermost, "cgroup.kill"), []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			syscall.Kill(guard, syscall.SIGKILL)
			p.signal(syscall.SIGKILL)
			p.code()
			etcdtest.Await(t, "the outermost group to be empty", func(context.Context) error {
				events, err := os.ReadFile(filepath.Join(outermost, "cgroup.events"))
				if err == nil && !strings.Contains(string(events), "populated 0") {
					err = errors.New(string(events))
				}
				return err
			})
			if left := groupsBelow(t, parent); len(left) != 3 {
				t.Fatalf("nobody was there to remove groups, and there are %q", left)
			}
			old := time.Now().Add(-time.Hour)
			if err := os.Chtimes(outermost, old, old); err != nil {
				t.Fatal(err)
			}
			later := lockerIn(t, parent, etcdtest.Shared(t).Endpoint(), "-k", "/nested-groups/later", "--",
				"sh", "-c", `while [ -e "$0" ]; do sleep 0.05; done`, outermost)
			if code := later.code(); code != 0 {
				t.Errorf("exit code %d: %s", code, later.stderr)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := testGroup(t)
			s := etcdtest.Shared(t)
			finish := filepath.Join(t.TempDir(), "finish")
			key := "/nested-groups/" + strings.ReplaceAll(name, " ", "-")
			inner := func(n string) []string {
				return []string{filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-k", key + n, "--"}
			}
			args := append(append([]string{"-k", key, "--"}, inner("/2")...), inner("/2/3")...)
			p := lockerIn(t, parent, s.Endpoint(), append(args, "sh", "-c", `echo ready; while [ ! -e "$0" ]; do sleep 0.05; done`, finish)...)
			p.says(p.stdout, "ready")
			groups := groupsBelow(t, parent)
			if len(groups) != 3 || !strings.HasPrefix(groups[1], groups[0]+"/") || !strings.HasPrefix(groups[2], groups[1]+"/") {
				t.Fatalf("three groups, one in the other, are wanted: %q", groups)
			}
			end(t, p, parent, finish)
			treeGone(t, key+"/2/3")
			etcdtest.Await(t, "the groups to go", func(context.Context) error {
				if left := groupsBelow(t, parent); len(left) > 0 {
					return fmt.Errorf("left: %q", left)
				}
				return nil
			})
		})
	}
}

// TestOtherPIDNamespace: what a command starts in another pid namespace falls to the first process
// there when its parent dies, so the kernel does not say that it is left. The group does.
func TestOtherPIDNamespace(t *testing.T) {
	t.Parallel()
	needsNamespaces(t)
	group := testGroup(t)
	s := etcdtest.Shared(t)
	const key = "/group-pidns"
	other := startCommand(t, nil, exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "echo there; exec sleep 1000"))
	other.says(other.stdout, "there")
	p := lockerIn(t, group, s.Endpoint(), "-k", key, "--grace", "0.1", "--",
		"nsenter", "--pid", "--target", strconv.Itoa(firstOf(t, other)), "sh", "-c", `sh -c 'trap "" TERM; echo there; exec sleep 1000' & wait`)
	p.says(p.stdout, "there")
	if _, err := s.Client(t).Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
	code := p.code()
	if left := marked("ETCD_LOCK_KEY=" + key); code != 2 || len(left) > 0 {
		t.Errorf("exit code %d, running: %v, %s", code, left, p.stderr)
	}
}
