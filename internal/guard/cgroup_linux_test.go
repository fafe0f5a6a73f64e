package guard

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestGroup: the control group alone finds everything that was put into it and what that has started, kills it, and stops it
// without anybody noticing. When it is removed, what is left goes on where it would be without.
func TestGroup(t *testing.T) {
	g := testGroup(t)
	dir := g.dir
	script := `trap '' TERM; setsid sh -c 'while :; do sleep 0.01; done' & while :; do sleep 0.01; done`
	// All of it is born in the group.
	cmd := exec.Command("sh", "-c", `echo $$ > "$0"/cgroup.procs && exec sh -c "$1"`, dir, script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await(t, "two in the group", func() bool { return len(members(t, dir)) >= 2 && g.has(cmd.Process.Pid) })
	if g.has(os.Getpid()) {
		t.Error("the test itself is said to be in the group")
	}

	g.freeze(true)
	await(t, "all to stand still", func() bool {
		events, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		return err == nil && strings.Contains(string(events), "frozen 1")
	})
	g.freeze(false)

	left := exec.Command("sleep", "1000")
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { left.Process.Kill(); left.Wait() }()
	g.kill()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("it lives")
	}
	await(t, "the group to be empty", func() bool { return len(members(t, dir)) == 0 })

	if err := g.write("cgroup.procs", strconv.Itoa(left.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	g.remove()
	if g.has(left.Process.Pid) {
		t.Error("what was left is in the group")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the group is there")
	}
	g.gather(1)
	if g.dir != dir {
		t.Error("another group was made after it was removed")
	}
}

// await polls, as the kernel tells nobody.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	etcdtest.Await(t, what, func(context.Context) error {
		if !is() {
			return errors.New("not yet")
		}
		return nil
	})
}

func members(t *testing.T, dir string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(content))
}

// testGroup makes a control group, or skips the test where that is not possible.
func testGroup(t *testing.T) *cgroup {
	t.Helper()
	own, parent, err := ownCgroup()
	if err != nil {
		etcdtest.Missing(t, err.Error())
	}
	dir, err := os.MkdirTemp(parent, cgroupPrefix+"test-")
	if err != nil {
		etcdtest.Missing(t, err.Error())
	}
	t.Cleanup(func() { syscall.Rmdir(dir) })
	if _, err := os.Stat(dir + "/cgroup.kill"); err != nil {
		etcdtest.Missing(t, err.Error())
	}
	return &cgroup{dir: dir, name: path.Join(own, filepath.Base(dir))}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/sys/fs/cgroup`: `/sys/fs/cgroup`, `a\040b\134c`: `a b\c`, `\04`: `\04`, `\999`: `\999`, ``: ``} {
		if got := unescape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
