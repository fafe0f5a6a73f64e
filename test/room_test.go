//go:build linux

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// playFiller is a command that uses up all processes of its user.
func playFiller(role string) {
	if role == "takes all room" {
		etcdtest.Fill()
	}
}

// TestNoRoom: a command that uses up all processes and threads that its user may have dies in time,
// also if it does so before those that have to kill it have had the time to prepare for that. At
// once means about then: one of them may be short of a thread and end of it.
func TestNoRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		etcdtest.Missing(t, "root")
	}
	self := reachable(t)
	for _, killed := range []string{"nothing", "etcdlocker", "guard"} {
		t.Run("at once/"+killed, func(t *testing.T) { fillRoom(t, self, "0", killed) })
		t.Run("later/"+killed, func(t *testing.T) {
			p, lease := fillRoom(t, self, "1", killed)
			want := map[string]int{"nothing": 2, "etcdlocker": -1, "guard": 137}
			if code := p.code(); code != want[killed] {
				t.Errorf("exit code %d, want %d, %q", code, want[killed], p.stderr)
			}
			if client := etcdtest.Shared(t).Client(t); killed == "etcdlocker" && !hasLease(t, client, lease) {
				t.Error("the lease had run out before the tree was dead")
			}
		})
	}
}

// rooms counts the calls of fillRoom.
var rooms atomic.Int32

// fillRoom runs such a command after some seconds, kills one of those that look after it, or takes
// the lock away, and waits until all of it is dead.
func fillRoom(t *testing.T, self, seconds, killed string) (p *program, lease int64) {
	t.Helper()
	s, client := etcdtest.Shared(t), etcdtest.Shared(t).Client(t)
	// A user whom nobody else has, so that nothing else counts among their processes, nor what is
	// dead after the time before and still to be reaped.
	user, key := fmt.Sprint(200000+1000*os.Getpid()+int(rooms.Add(1))), fmt.Sprint("/no-room/", time.Now().UnixNano())
	p = startCommand(t, []string{roleVariable + "=takes all room"}, exec.Command(
		"setpriv", "--reuid="+user, "--regid="+user, "--clear-groups", "prlimit", "--nproc=150",
		filepath.Join(programs, "etcdlocker"), "-e", s.Endpoint(), "-t", "300", "-k", key, "--",
		"sh", "-c", `echo held; sleep "$1"; "$0" & wait`, self, seconds))
	t.Cleanup(func() { kill(marked("ETCD_LOCK_KEY=" + key)) })
	p.says(p.stdout, "held")
	lease, guard := held(t, client, key).Kvs[0].Lease, guardOf(t, p)
	p.says(p.stdout, "ready")
	switch killed {
	case "nothing":
		client.Revoke(etcdtest.Context(t), clientv3.LeaseID(lease)) // so may this
	case "etcdlocker":
		p.cmd.Process.Kill() // it may be gone
	case "guard":
		syscall.Kill(guard, syscall.SIGKILL)
	}
	before := time.Now()
	treeGone(t, key)
	t.Logf("dead after %v", time.Since(before))
	return p, lease
}
