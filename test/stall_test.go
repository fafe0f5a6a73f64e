package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestStalledFollower: one member of three does not get its writes to disk. It answers no request
// that has to do with the others, and a client meets it with each third one, or each second. Who
// starts gets a lock that is free all the same.
func TestStalledFollower(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	for name, vars := range map[string][]string{"without users": nil, "with users": {"ETCDCTL_USER=worker:pass"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := etcdtest.StartCluster(t, 3, etcdtest.WithSync())
			if vars != nil {
				c.AddUser(t, "worker", "pass", "/stall")
				c.EnableAuth(t, "root-password")
			}
			leader := c.Leader()
			i := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Member(i) != leader })
			stalled, healthy := c.Member(i), c.Member((i+1)%3)
			stall(t, stalled, healthy)
			startAll(t, vars, "three", strings.Join(c.Endpoints(), ","))
			startAll(t, vars, "two", healthy.Endpoint()+","+stalled.Endpoint())
		})
	}
}

// startAll starts some at once, each for a lock of its own.
func startAll(t *testing.T, vars []string, name, endpoints string) {
	t.Helper()
	var all []*program
	begun := time.Now()
	for n := range 8 {
		all = append(all, start(t, vars, "etcdlocker", "-v", "-e", endpoints, "-t", "8", "--connect-timeout", "1m",
			"-k", fmt.Sprintf("/stall/%s-%d", name, n), "true"))
	}
	for _, p := range all {
		if code := p.code(); code != 0 {
			t.Errorf("%s: exit code %d, %s", name, code, p.stderr)
		}
	}
	t.Logf("%s endpoints: all have run after %v", name, time.Since(begun))
}

// stall holds up what a member syncs to disk, from the next time on, until the test is over.
func stall(t *testing.T, member, other *etcdtest.Process) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		etcdtest.Missing(t, "strace")
	}
	var said buffer
	cmd := exec.Command("strace", "-f", "-p", fmt.Sprint(member.PID()), "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=600s")
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	client := other.Client(t)
	etcdtest.Await(t, "the member to stall", func(ctx context.Context) error {
		if _, err := client.Put(ctx, "/stall/key", "written"); err != nil {
			return err
		}
		if text := said.String(); !strings.Contains(text, "sync(") {
			return errors.New(text)
		}
		return nil
	})
}
