//go:build linux

package taking

import (
	"context"
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// starts is how many start in each variant of TestStalledFollower. What are more than usual are
// compared with etcdctl lock.
var starts = flag.Int("starts", startsAtOnce, "how many start in each variant of TestStalledFollower; if more than usual, beside etcdctl lock")

// startsAtOnce is few enough that their logins, which etcd checks at its usual cost, are not what
// takes the time.
const startsAtOnce = 8

// TestStalledFollower: one member of three does not get its writes to disk. It answers no request
// that has to do with the others, and a client meets it with each third one, or each second. Who
// starts gets a lock that is free all the same.
func TestStalledFollower(t *testing.T) {
	t.Parallel()
	if !etcdtest.CanStall() {
		etcdtest.Missing(t, "root and strace")
	}
	user := []string{"ETCDCTL_USER=worker:pass"}
	for _, v := range []struct {
		name string
		vars []string
		opts []etcdtest.Option
	}{
		{"without users", nil, nil},
		{"with users", user, nil},
		{"with JSON web tokens", user, []etcdtest.Option{etcdtest.WithTokens(10 * time.Minute)}},
	} {
		t.Run(v.name, func(t *testing.T) {
			if *starts == startsAtOnce { // else they would be late because of each other
				t.Parallel()
			}
			c := etcdtest.StartCluster(t, 3, append(v.opts, etcdtest.WithSync())...)
			if v.vars != nil {
				c.AddUser(t, "worker", "pass", "/stall")
				c.EnableAuth(t, "root-password")
			}
			leader := c.Leader()
			i := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Member(i) != leader })
			stalled, healthy := c.Member(i), c.Member((i+1)%3)
			stall(t, stalled, healthy)
			for name, endpoints := range map[string]string{
				"three": strings.Join(c.Endpoints(), ","),
				"two":   healthy.Endpoint() + "," + stalled.Endpoint(),
			} {
				startOurs(t, v.vars, name, endpoints)
				if *starts > startsAtOnce {
					startTheirs(t, v.vars, name, endpoints)
				}
			}
		})
	}
}

// TestStalledLeader: the leader of three members does not get its writes to disk. The others elect
// a new one, and then it is a member that stalls. A holder keeps its lock, and who starts gets one.
func TestStalledLeader(t *testing.T) {
	t.Parallel()
	if !etcdtest.CanStall() {
		etcdtest.Missing(t, "root and strace")
	}
	c := etcdtest.StartCluster(t, 3, etcdtest.WithSync())
	leader := c.Leader()
	i := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Member(i) != leader })
	endpoints := strings.Join(c.Endpoints(), ",")
	holder := programs.Locker(t, endpoints, "-v", "-t", "30", "-r", "1", "-k", "/stall/held", "sleep", "infinity")
	holder.Renews(1)
	begun := time.Now()
	stall(t, leader, c.Member(i))
	t.Logf("a write took %v", time.Since(begun))
	startOurs(t, nil, "a leader", endpoints)
	holder.Renews(2)
}

// late is what a start must not take, and never when it is given up.
const (
	late  = 5 * time.Second
	never = 20 * time.Second
)

// startOurs starts etcdlockers. In a long run none may be late. Elsewhere a machine on which eight
// logins alone take 5 s, the usual --connect-timeout, only makes it slower.
func startOurs(t *testing.T, vars []string, name, endpoints string) {
	t.Helper()
	all, took := startAll(t, vars, time.Minute, func(n int) *exec.Cmd {
		return exec.Command(programs.Path("etcdlocker"), "-v", "-e", endpoints, "-t", "8",
			"--connect-timeout", never.String(), "-k", fmt.Sprintf("/stall/%s-%d", name, n), "true")
	})
	for i, p := range all {
		if code := p.Code(); code != 0 {
			t.Errorf("%s: exit code %d, %s", name, code, p.Stderr)
		}
		if took[i] > late {
			t.Logf("%s endpoints: %v, %s", name, took[i], p.Stderr)
		}
	}
	if n := report(t, name+" endpoints", took); n > 0 && *starts > startsAtOnce {
		t.Errorf("%s endpoints: %d have started late", name, n)
	}
}

// startTheirs starts etcdctl lock instead, which may give up, or hang.
func startTheirs(t *testing.T, vars []string, name, endpoints string) {
	t.Helper()
	programs.BuildEtcdctl(t)
	all, took := startAll(t, vars, never, func(n int) *exec.Cmd {
		return exec.Command(programs.Path("etcdctl"), "--endpoints", endpoints, "lock", "--ttl", "8",
			fmt.Sprintf("/stall/%s-of-etcdctl-%d", name, n), "true")
	})
	refused, hung := 0, 0
	for _, p := range all {
		switch p.Code() {
		case 0:
		case -1:
			hung++
		default:
			refused++
		}
	}
	report(t, name+" endpoints, etcdctl lock", took)
	t.Logf("%s endpoints, etcdctl lock: %d had not got it after %v, %d gave up before", name, hung, never, refused)
}

// report says how long starts took, and returns how many were late.
func report(t *testing.T, what string, took []time.Duration) (n int) {
	t.Helper()
	for _, d := range took {
		if d > late {
			n++
		}
	}
	t.Logf("%s: %d starts, the worst took %v, %d more than %v", what, len(took), slices.Max(took), n, late)
	return n
}

// startAll starts as many as the flag says, some at once, each for a lock of its own. It returns
// them when they have ended, and how long each took. Who needs longer than a limit is killed.
func startAll(t *testing.T, vars []string, limit time.Duration, command func(n int) *exec.Cmd) (all []*programs.Run, took []time.Duration) {
	t.Helper()
	all, took = make([]*programs.Run, *starts), make([]time.Duration, *starts)
	for n := 0; n < *starts; n += startsAtOnce {
		var batch sync.WaitGroup
		for i := n; i < min(n+startsAtOnce, *starts); i++ {
			begun := time.Now()
			all[i] = programs.StartCommand(t, vars, command(i))
			batch.Go(func() {
				timer := time.AfterFunc(limit, func() { all[i].Cmd.Process.Kill() })
				defer timer.Stop()
				<-all[i].Done
				took[i] = time.Since(begun)
			})
		}
		batch.Wait()
	}
	return all, took
}

// stall holds up what a member syncs to disk until the test is over.
func stall(t *testing.T, member, other *etcdtest.Process) {
	t.Helper()
	t.Cleanup(member.Stall())
	client := other.Client(t)
	etcdtest.Await(t, "a write that the member does not get to disk", func(ctx context.Context) error {
		_, err := client.Put(ctx, "/stall/key", "x") // it can time out, as without a leader
		return err
	})
}
