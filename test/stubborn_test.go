package test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// roleVariable makes the test binary play a part in a command's tree that no shell can play.
const roleVariable = "ETCDLOCK_TEST_ROLE"

// play plays the part. It does not return.
func play(role string) {
	switch role {
	case "tracer":
		runtime.LockOSThread()
		// Stopped by its tracer from its first instruction on.
		_, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Ptrace: true}})
		fmt.Println("ready", err)
		time.Sleep(time.Hour)
	}
	os.Exit(1)
}

// stubbornTrees are commands that do not want to end. They say when they are ready.
var stubbornTrees = map[string]string{
	"forks while it is killed": `trap '' TERM; i=0; while [ $i -lt 400 ]; do setsid sh -c 'trap "" TERM; sleep 1000 & sleep 1000' > /dev/null 2>&1 & i=$((i+1)); [ $i = 50 ] && echo ready; done; wait`,
	"double forks":             `trap '' TERM; for i in 1 2 3; do (setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' > /dev/null 2>&1 &); done; sleep 0.1; echo ready; while :; do sleep 0.01; done`,
	"closes everything":        `trap '' TERM; echo ready; exec 0<&- 1>&- 2>&-; setsid sleep 1000 & while :; do sleep 0.01; done`,
	"is stopped":               `sleep 1000 & kill -STOP $!; echo ready; kill -STOP $$; sleep 1000`,
	"is traced":                `exec "$TEST_BINARY"`,
	"has another name":         `bash -c 'exec -a sshd sleep 1000' & echo ready; exec sleep 1000`,
}

// TestStubbornTrees: they all die, by the hand of etcdlocker when the lock is taken away by force, and by the hand of the
// guard when etcdlocker is killed.
func TestStubbornTrees(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range stubbornTrees {
		for _, hand := range []string{"etcdlocker", "guard"} {
			t.Run(name+"/"+hand, func(t *testing.T) {
				s := etcdtest.Shared(t)
				client, key := s.Client(t), "/stubborn/"+strings.ReplaceAll(name, " ", "-")+"/"+hand
				vars := []string{"TEST_BINARY=" + self, roleVariable + "=tracer"}
				p := start(t, vars, "etcdlocker", "-e", s.Endpoint(), "-t", "300", "-k", key, "--", "sh", "-c", script)
				p.says(p.stdout, "ready")
				before := time.Now()
				if hand == "guard" {
					p.signal(syscall.SIGKILL)
				} else if _, err := client.Revoke(etcdtest.Context(t), clientv3.LeaseID(held(t, client, key).Kvs[0].Lease)); err != nil {
					t.Fatal(err)
				}
				treeGone(t, key)
				if took := time.Since(before); took > time.Minute {
					t.Errorf("it took %v", took)
				} else {
					t.Logf("dead after %v", took)
				}
				if code := p.code(); hand == "etcdlocker" && code != 2 {
					t.Errorf("exit code %d, %q", code, p.stderr)
				}
			})
		}
	}
}
