package etcdtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
)

func mustPut(t *testing.T, client *clientv3.Client, key, value string) int64 {
	t.Helper()
	put, err := client.Put(Context(t), key, value)
	if err != nil {
		t.Fatalf("put %q: %v", key, err)
	}
	return put.Header.Revision
}

// value returns what key holds, "" if it does not exist.
func value(t *testing.T, client *clientv3.Client, key string) string {
	t.Helper()
	get, err := client.Get(Context(t), key)
	if err != nil {
		t.Fatalf("get %q: %v", key, err)
	}
	if len(get.Kvs) == 0 {
		return ""
	}
	return string(get.Kvs[0].Value)
}

func TestKilledProcessKeepsItsData(t *testing.T) {
	began := time.Now()
	p := StartProcess(t)
	t.Logf("started in %v", time.Since(began))
	client := p.Client(t)
	revision := mustPut(t, client, "a", "1")
	pid := p.PID()

	p.Kill()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the killed process: %v", err)
	}
	if err := dials(strings.TrimPrefix(p.Endpoint(), "http://")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting to a killed member: %v", err)
	}
	began = time.Now()
	p.Restart()
	t.Logf("restarted in %v", time.Since(began))
	if got := value(t, client, "a"); got != "1" {
		t.Errorf("after a restart a = %q", got)
	}
	if got := mustPut(t, client, "b", ""); got != revision+1 {
		t.Errorf("revision %d after %d", got, revision)
	}
}

func TestWipedProcessForgets(t *testing.T) {
	p := StartProcess(t)
	client := p.Client(t)
	mustPut(t, client, "a", "1")
	first := mustPut(t, client, "a", "2")
	endpoint := p.Endpoint()
	p.Wipe()
	if p.Endpoint() != endpoint {
		t.Errorf("moved from %s to %s", endpoint, p.Endpoint())
	}
	if got := value(t, client, "a"); got != "" {
		t.Errorf("after a wipe a = %q", got)
	}
	if again := mustPut(t, client, "a", "3"); again >= first {
		t.Errorf("revision %d after a wipe, %d before", again, first)
	}
}

func TestStoppedProcessIsSilent(t *testing.T) {
	p := StartProcess(t)
	client := p.Client(t)
	mustPut(t, client, "a", "1")
	p.Stop()
	put := make(chan error, 1)
	go func() {
		_, err := client.Put(Context(t), "a", "2")
		put <- err
	}()
	if err := dials(strings.TrimPrefix(p.Endpoint(), "http://")); err != nil {
		t.Errorf("connecting to a stopped member: %v", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil || !strings.Contains(string(status), ") T ") {
		t.Errorf("not stopped: %s, %v", status, err)
	}
	select {
	case err := <-put:
		t.Errorf("a stopped member answered: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	p.Cont()
	if err := <-put; err != nil {
		t.Errorf("after going on: %v", err)
	}
	p.Stop() // its end must not hang
}

func TestProcessWithAuthAndTLS(t *testing.T) {
	p := StartProcess(t, WithTLS())
	p.EnableAuth(t, "secret")
	mustPut(t, p.Client(t), "a", "1")
	p.Restart()
	if got := value(t, p.Client(t), "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
	p.Wipe()
	p.Empty(t)
}

// TestMembersDieWithTheTestBinary kills a test binary that has a running and a stopped member.
func TestMembersDieWithTheTestBinary(t *testing.T) {
	if os.Getenv("ETCDTEST_VICTIM") != "" {
		running, stopped := StartProcess(t), StartProcess(t)
		stopped.Stop()
		fmt.Printf("members %d %d\n", running.PID(), stopped.PID())
		select {} // until killed
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMembersDieWithTheTestBinary$")
	dir := t.TempDir() // a killed test cannot remove its own
	cmd.Env = append(os.Environ(), "ETCDTEST_VICTIM=1", "TMPDIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startTied(cmd); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()

	var pids [2]int
	for lines := bufio.NewScanner(out); pids[0] == 0; {
		if !lines.Scan() {
			t.Fatal("the test binary ended early")
		}
		fmt.Sscanf(lines.Text(), "members %d %d", &pids[0], &pids[1])
	}
	for _, pid := range pids {
		if !isMember(pid) {
			t.Errorf("process %d is no member", pid)
		}
	}
	cmd.Process.Kill()
	Await(t, "the members' end", func(context.Context) error {
		for _, pid := range pids {
			if isMember(pid) {
				return fmt.Errorf("process %d lives", pid)
			}
		}
		return nil
	})
}

// isMember tells whether the process is a member. A dead one that nobody waited for does not
// count.
func isMember(pid int) bool {
	cmdline, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return strings.HasPrefix(string(cmdline), memberName)
}
