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
	"github.com/etcdlock/etcdlock/test/programs"
)

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
	parent := programs.ControlGroup(t)
	if err := os.WriteFile(filepath.Join(parent, "cgroup.kill"), []byte("1"), 0); err != nil {
		etcdtest.Skip(t, "no cgroup.kill, which is Linux 5.14's")
	}
	s := etcdtest.Shared(t)
	// Born there, it would be killed itself.
	cmd := exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, parent,
		programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", "/group-killed", "--", "sh", "-c", "echo executed; exit 7")
	p := programs.StartCommand(t, nil, cmd)
	if code := p.Code(); code != 7 || p.Stdout.String() != "executed\n" {
		t.Errorf("exit code %d, %q, %q", code, p.Stdout, p.Stderr)
	}
}

// TestGroupRefused: if the kernel refuses to start the command in its control group, here because
// the group was removed meanwhile, the command is executed all the same: once, outside of the
// group, and it dies with its etcdlocker.
func TestGroupRefused(t *testing.T) {
	t.Parallel()
	parent := programs.ControlGroup(t)
	s := etcdtest.Shared(t)
	const key = "/group-refused"
	before := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	p := programs.LockerIn(t, parent, s.Endpoint(), "-k", key, "--", "sh", "-c", "echo executed; cat /proc/self/cgroup; echo ready; while :; do sleep 0.05; done")
	etcdtest.Await(t, "the group", func(context.Context) error {
		groups := groupsBelow(t, parent)
		if len(groups) == 0 {
			return errors.New("none")
		}
		// The guard must have opened it, or it would do without from the start.
		if err := isOpen(programs.GuardOf(t, p), groups[0]); err != nil {
			return err
		}
		return syscall.Rmdir(groups[0])
	})
	before.Signal(syscall.SIGTERM)
	p.Says(p.Stdout, "ready")
	if said := p.Stdout.String(); strings.Count(said, "executed") != 1 || !strings.Contains(said, "0::/"+filepath.Base(parent)+"\n") {
		t.Errorf("the command says %q, and etcdlocker %q", said, p.Stderr)
	}
	p.Signal(syscall.SIGKILL)
	programs.AwaitTreeEnd(t, key)
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

// awaitNoGroups waits until all groups of etcdlockers below another one are gone.
func awaitNoGroups(t *testing.T, parent string) {
	t.Helper()
	etcdtest.Await(t, "the groups to go", func(context.Context) error {
		if left := groupsBelow(t, parent); len(left) > 0 {
			return fmt.Errorf("left: %q", left)
		}
		return nil
	})
}

// TestNestedGroups: of etcdlockers that run one below the other no control group is left.
func TestNestedGroups(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, p *programs.Run, parent, finish string){
		"they end": func(t *testing.T, p *programs.Run, _, finish string) {
			if err := os.WriteFile(finish, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if code := p.Code(); code != 0 {
				t.Errorf("exit code %d: %s", code, p.Stderr)
			}
		},
		"the outermost etcdlocker is killed": func(t *testing.T, p *programs.Run, _, _ string) { p.Signal(syscall.SIGKILL) },
		// Then another guard removes the groups, once they are old.
		"everything is killed": func(t *testing.T, p *programs.Run, parent, _ string) {
			outermost := groupsBelow(t, parent)[0]
			// Neither of these can do anything meanwhile.
			guard := programs.GuardOf(t, p)
			p.Signal(syscall.SIGSTOP)
			syscall.Kill(guard, syscall.SIGSTOP)
			if err := os.WriteFile(filepath.Join(outermost, "cgroup.kill"), []byte("1"), 0); err != nil {
				t.Fatal(err)
			}
			syscall.Kill(guard, syscall.SIGKILL)
			p.Signal(syscall.SIGKILL)
			p.Code()
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
			later := programs.LockerIn(t, parent, etcdtest.Shared(t).Endpoint(), "-k", "/nested-groups/later", "--",
				"sh", "-c", `while [ -e "$0" ]; do sleep 0.05; done`, outermost)
			if code := later.Code(); code != 0 {
				t.Errorf("exit code %d: %s", code, later.Stderr)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := programs.ControlGroup(t)
			s := etcdtest.Shared(t)
			finish := filepath.Join(t.TempDir(), "finish")
			key := "/nested-groups/" + strings.ReplaceAll(name, " ", "-")
			inner := func(n string) []string {
				return []string{programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key + n, "--"}
			}
			args := append(append([]string{"-k", key, "--"}, inner("/2")...), inner("/2/3")...)
			p := programs.LockerIn(t, parent, s.Endpoint(), append(args, "sh", "-c", `echo ready; while [ ! -e "$0" ]; do sleep 0.05; done`, finish)...)
			p.Says(p.Stdout, "ready")
			groups := groupsBelow(t, parent)
			if len(groups) != 3 || !strings.HasPrefix(groups[1], groups[0]+"/") || !strings.HasPrefix(groups[2], groups[1]+"/") {
				t.Fatalf("three groups, one in the other, are wanted: %q", groups)
			}
			end(t, p, parent, finish)
			programs.AwaitTreeEnd(t, key+"/2/3")
			awaitNoGroups(t, parent)
		})
	}
}

// TestGroupOutlivesOuter: an etcdlocker that goes on when one around it has ended keeps the control
// group of its command, and takes along what was kept for it above.
func TestGroupOutlivesOuter(t *testing.T) {
	t.Parallel()
	parent := programs.ControlGroup(t)
	s := etcdtest.Shared(t)
	const outer, inner = "/outlives", "/outlives/inner"
	dir := t.TempDir()
	goOn, finish := filepath.Join(dir, "go"), filepath.Join(dir, "finish")
	until := `while [ ! -e "$0" ]; do sleep 0.05; done`
	p := programs.LockerIn(t, parent, s.Endpoint(), "-k", outer, "--", "sh", "-c",
		`"$1" -e "$2" -k "$3" -- sh -c "$4" "$5" >/dev/null 2>&1 & eval "$4"`,
		goOn, programs.Path("etcdlocker"), s.Endpoint(), inner, until, finish)
	var groups []string
	runs := func(context.Context) error {
		if groups = groupsBelow(t, parent); len(groups) != 2 {
			return fmt.Errorf("two groups are wanted: %q", groups)
		}
		procs, err := os.ReadFile(filepath.Join(groups[1], "cgroup.procs"))
		if err == nil && len(procs) == 0 {
			err = errors.New("nobody is in the inner group")
		}
		return err
	}
	etcdtest.Await(t, "the inner command", runs)
	programs.Create(t, goOn)
	if code := p.Code(); code != 0 {
		t.Errorf("exit code %d: %s", code, p.Stderr)
	}
	if err := runs(etcdtest.Context(t)); err != nil {
		t.Errorf("when the outer one has ended: %v", err)
	}
	programs.AwaitHeld(t, s.Client(t), inner)
	programs.Create(t, finish)
	awaitNoGroups(t, parent)
	programs.AwaitTreeEnd(t, outer) // the inner etcdlocker, which releases its lock last
	programs.CheckFree(t, s.Client(t), outer, inner)
}

// TestOtherPIDNamespace: what a command starts in another pid namespace falls to the first process
// there when its parent dies, so the kernel does not say that it is left. The group does.
func TestOtherPIDNamespace(t *testing.T) {
	t.Parallel()
	programs.NeedsNamespaces(t)
	group := programs.ControlGroup(t)
	s := etcdtest.Shared(t)
	const key = "/group-pidns"
	other := programs.StartCommand(t, nil, exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", "echo there; exec sleep 1000"))
	other.Says(other.Stdout, "there")
	p := programs.LockerIn(t, group, s.Endpoint(), "-k", key, "--grace", "0.1", "--",
		"nsenter", "--pid", "--target", strconv.Itoa(firstOf(t, other)), "sh", "-c", `sh -c 'trap "" TERM; echo there; exec sleep 1000' & wait`)
	p.Says(p.Stdout, "there")
	if _, err := s.Client(t).Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
	code := p.Code()
	if left := programs.Marked("ETCD_LOCK_KEY=" + key); code != 2 || len(left) > 0 {
		t.Errorf("exit code %d, running: %v, %s", code, left, p.Stderr)
	}
}
