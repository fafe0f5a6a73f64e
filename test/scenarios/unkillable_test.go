//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestNotProvedDead: a process that became root's may not be signalled by an unprivileged
// etcdlocker. The lock is not released while it may run, and the code says so.
func TestNotProvedDead(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	become := setuidRoot(t, "setpriv")
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	p := programs.LockerOf(t, programs.Nobody, nil, s.Endpoint(), "-k", "/unkillable", "-t", "30", "--grace", "0.1", "--", "sh", "-c",
		become+` --reuid=0 --regid=0 --clear-groups sh -c 'echo $$; exec sleep 1000' & wait`)
	p.Says(p.Stdout, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(p.Stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	etcdtest.Await(t, "sleep to be executed", func(context.Context) error {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(name) != "sleep\n" {
			err = fmt.Errorf("it is %q", name)
		}
		return err
	})

	if _, err := client.Delete(ctx, "/unkillable"); err != nil {
		t.Fatal(err)
	}
	if code := p.Code(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	said := regexp.MustCompile(`error: lock "/unkillable": sleep \(pid ` + strconv.Itoa(pid) + `\) could not be killed`)
	if !said.MatchString(p.Stderr.String()) {
		t.Errorf("it says %q", p.Stderr)
	}
	if n := len(etcdtest.Keys(t, client, "/unkillable/")); n != 1 {
		t.Errorf("%d places in line: the lock was given away", n)
	}
	if _, err := client.Delete(ctx, "/unkillable/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

// setuidRoot returns a copy of a program that runs as root whoever starts it.
func setuidRoot(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		etcdtest.Missing(t, name)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Not below t.TempDir, which the others may not enter.
	file := programs.Path("as-root-" + name)
	if err := os.WriteFile(file, program, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file) })
	if err := os.Chmod(file, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	return file
}
