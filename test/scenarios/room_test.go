//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// playFiller is a command that uses up all processes of its user.
func playFiller(role string) {
	if role == "takes all room" {
		etcdtest.Fill()
	}
}

// TestNoRoom: a command that uses up all processes and threads that its user may have dies in time,
// also if it does so before those that have to kill it have had the time to prepare for that. At
// once means about then: one of them may be short of a thread and end of it. If the other one is
// killed, nobody is left, as docs/guarantees.md says.
func TestNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	self := reachable(t)
	for _, killed := range []string{"nothing", "etcdlocker", "guard"} {
		t.Run("at once/"+killed, func(t *testing.T) {
			f := fillRoom(t, self, "0", killed)
			etcdtest.Await(t, "the whole tree to end", func(context.Context) error {
				if f.isAlone() {
					t.Logf("nobody is left to kill the command: %q", f.Stderr)
					return nil
				}
				return programs.TreeRuns(f.key)
			})
		})
		t.Run("later/"+killed, func(t *testing.T) {
			f := fillRoom(t, self, "1", killed)
			programs.AwaitTreeEnd(t, f.key)
			want := map[string]int{"nothing": 2, "etcdlocker": -1, "guard": 137}
			if code := f.Code(); code != want[killed] {
				t.Errorf("exit code %d, want %d, %q", code, want[killed], f.Stderr)
			}
			if client := etcdtest.Shared(t).Client(t); killed == "etcdlocker" && !programs.HasLease(t, client, f.lease) {
				t.Error("the lease had run out before the tree was dead")
			}
		})
	}
}

// rooms counts the calls of fillRoom.
var rooms atomic.Int32

// A filling is such a command and those that look after it.
type filling struct {
	*programs.Run
	key   string
	guard int
	lease int64
}

// isAlone reports whether neither etcdlocker nor the guard is there any more, and the command is.
func (f filling) isAlone() bool {
	for _, pid := range []int{f.Cmd.Process.Pid, f.guard} {
		if syscall.Kill(pid, 0) != syscall.ESRCH {
			return false
		}
	}
	return programs.TreeRuns(f.key) != nil
}

// fillRoom runs such a command after some seconds, and then kills one of those that look after it,
// or takes the lock away.
func fillRoom(t *testing.T, self, seconds, killed string) (f filling) {
	t.Helper()
	s, client := etcdtest.Shared(t), etcdtest.Shared(t).Client(t)
	// A user whom nobody else has, so that nothing else counts among their processes, nor what is
	// dead after the time before and still to be reaped.
	user := fmt.Sprint(200000 + 1000*os.Getpid() + int(rooms.Add(1)))
	f.key = fmt.Sprint("/no-room/", time.Now().UnixNano())
	f.Run = programs.StartCommand(t, []string{roleVariable + "=takes all room", "TMPDIR=" + programs.OpenDir(t)}, exec.Command(
		"setpriv", "--reuid="+user, "--regid="+user, "--clear-groups", "prlimit", "--nproc=150",
		programs.Path("etcdlocker"), "-e", s.Endpoint(), "-t", "300", "-k", f.key, "--",
		"sh", "-c", `echo held; sleep "$1"; "$0" & wait`, self, seconds))
	t.Cleanup(func() { programs.Kill(programs.Marked("ETCD_LOCK_KEY=" + f.key)) })
	f.Says(f.Stdout, "held")
	f.lease, f.guard = programs.AwaitHeld(t, client, f.key).Kvs[0].Lease, programs.GuardOf(t, f.Run)
	f.Says(f.Stdout, "ready")
	switch killed {
	case "nothing":
		client.Revoke(etcdtest.Context(t), clientv3.LeaseID(f.lease)) // so may this
	case "etcdlocker":
		f.Cmd.Process.Kill() // it may be gone
	case "guard":
		syscall.Kill(f.guard, syscall.SIGKILL)
	}
	return f
}
