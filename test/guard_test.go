//go:build linux

package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// marked returns the processes that run with a variable in their environment, etcdlocker and its guard aside. Those that
// are dead and not waited for do not count.
func marked(t testing.TB, variable string) map[int]string {
	t.Helper()
	found := map[int]string{}
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+variable+"\x00")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err == nil && len(cmdline) > 0 {
			found[pid] = strings.ReplaceAll(string(cmdline), "\x00", " ")
		}
	}
	return found
}

// treeGone waits until nothing of a lock's command runs.
func treeGone(t testing.TB, key string) {
	t.Helper()
	etcdtest.Await(t, "the whole tree to end", func(context.Context) error {
		if left := marked(t, "ETCD_LOCK_KEY="+key); len(left) > 0 {
			return fmt.Errorf("running: %v", left)
		}
		return nil
	})
}

// guardOf waits for the guard of an etcdlocker, which is its only child.
func guardOf(t testing.TB, p *program) int {
	t.Helper()
	var guard int
	etcdtest.Await(t, "the guard", func(context.Context) error {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.cmd.Process.Pid, p.cmd.Process.Pid))
		if err == nil {
			_, err = fmt.Sscan(string(children), &guard)
		}
		if err != nil {
			// Children belong to the thread that started them.
			out, _ := exec.Command("pgrep", "-P", strconv.Itoa(p.cmd.Process.Pid)).Output()
			_, err = fmt.Sscan(string(out), &guard)
		}
		return err
	})
	return guard
}

// stubbornTree is a command with a child and a grandchild in a session of its own, which all ignore TERM.
var stubbornTree = []string{"sh", "-c", `trap '' TERM; setsid sh -c 'sleep 1000 & wait' > /dev/null 2>&1 & sleep 1000 & echo ready; while :; do sleep 0.01; done`}

// TestGuard: whichever one process is killed or stopped, nothing of the tree runs when the lease runs out.
func TestGuard(t *testing.T) {
	tests := []struct {
		name   string
		sig    syscall.Signal
		guard  bool // it is the guard's turn
		ttl    string
		expect int // the exit code, if etcdlocker lives to have one
	}{
		{"etcdlocker killed", syscall.SIGKILL, false, "300", -1}, // at once, not when validity ends
		{"etcdlocker stopped", syscall.SIGSTOP, false, "4", -1},
		{"guard killed", syscall.SIGKILL, true, "300", 137},
		{"guard stopped", syscall.SIGSTOP, true, "4", 137},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/guard/"+strings.ReplaceAll(tt.name, " ", "-")
			p := locker(t, s.Endpoint(), append([]string{"-t", tt.ttl, "-k", key, "--"}, stubbornTree...)...)
			p.says(p.stdout, "ready")
			if n := len(marked(t, "ETCD_LOCK_KEY="+key)); n < 3 {
				t.Fatalf("only %d processes in the tree", n)
			}
			lease := held(t, client, key).Kvs[0].Lease
			pid := p.cmd.Process.Pid
			if tt.guard {
				pid = guardOf(t, p)
			}
			before := time.Now()
			if err := syscall.Kill(pid, tt.sig); err != nil {
				t.Fatal(err)
			}
			treeGone(t, key)
			if took := time.Since(before); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if tt.expect < 0 {
				if !hasLease(t, client, lease) {
					t.Error("the lease had run out before the tree was dead")
				}
				return
			}
			if code := p.code(); code != tt.expect || !strings.Contains(p.stderr.String(), "the guard process was killed") {
				t.Errorf("exit code %d, %q", code, p.stderr)
			}
			free(t, client, key)
		})
	}
}

// TestLongerThanTheTTL: the guard hears of renewals.
func TestLongerThanTheTTL(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), "-t", "2", "-k", "/longer", "--", "sh", "-c", "sleep 4; exit 4")
	if code := p.code(); code != 4 {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}

// TestStoppedLockerComesBack: it finds that the lock is lost, and says so.
func TestStoppedLockerComesBack(t *testing.T) {
	s := etcdtest.Shared(t)
	p := locker(t, s.Endpoint(), append([]string{"-t", "2", "-k", "/back", "--"}, stubbornTree...)...)
	p.says(p.stdout, "ready")
	p.signal(syscall.SIGSTOP)
	treeGone(t, "/back")
	p.signal(syscall.SIGCONT)
	if code := p.code(); code != 2 || !strings.Contains(p.stderr.String(), "lost") {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}

// TestBothAtOnce: etcdlocker and its guard, killed or stopped together, take the command itself with them.
func TestBothAtOnce(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/both/"+name
			p := locker(t, s.Endpoint(), "-t", "3", "-k", key, "--", "sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
			p.says(p.stdout, "ready")
			lease := held(t, client, key).Kvs[0].Lease
			guard := guardOf(t, p)
			p.signal(syscall.SIGSTOP) // so that it cannot act between the two
			syscall.Kill(guard, sig)
			if sig == syscall.SIGKILL {
				p.signal(sig)
			}
			treeGone(t, key)
			if !hasLease(t, client, lease) {
				t.Error("the lease had run out before the command was dead")
			}
		})
	}
}

// TestAnyMoment: killed or stopped at moments from the start of etcdlocker to the end of its command, one of the two leaves
// nothing behind.
func TestAnyMoment(t *testing.T) {
	s := etcdtest.Shared(t)
	for i := range 24 {
		key := fmt.Sprint("/moment/", i)
		sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[i%2]
		victim := []string{"etcdlocker", "guard"}[i/2%2]
		t.Run(fmt.Sprint(victim, sig, i), func(t *testing.T) {
			t.Parallel()
			p := locker(t, s.Endpoint(), append([]string{"-t", "2", "-k", key, "--"}, stubbornTree...)...)
			time.Sleep(time.Duration(i) * 2 * time.Millisecond) // the moment
			pid := p.cmd.Process.Pid
			if victim == "guard" {
				pid = guardOf(t, p)
			}
			if i >= 16 {
				p.signal(syscall.SIGTERM) // it is being stopped
			}
			syscall.Kill(pid, sig)
			if sig == syscall.SIGKILL && victim == "etcdlocker" {
				p.code()
			}
			// It may not have had the lock yet, and its command may be about to start.
			outlived(t, s, key)
			treeGone(t, key)
		})
	}
}

// outlived waits until whoever has or may get a lock is out of the line.
func outlived(t testing.TB, s *etcdtest.Server, key string) {
	t.Helper()
	client := s.Client(t)
	etcdtest.Await(t, "the line to be empty", func(context.Context) error {
		if n := places(t, client, key); n > 0 {
			return errors.New("somebody is there")
		}
		return nil
	})
}

// TestProgramReplaced: what runs goes on, whatever becomes of the file that it was started from.
func TestProgramReplaced(t *testing.T) {
	s := etcdtest.Shared(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "etcdlocker")
	content, err := os.ReadFile(filepath.Join(programs, "etcdlocker"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, content, 0o700); err != nil {
		t.Fatal(err)
	}
	holder := locker(t, s.Endpoint(), "-k", "/replaced")
	held(t, s.Client(t), "/replaced")
	p := startCommand(t, nil, exec.Command(program, "-e", s.Endpoint(), "-k", "/replaced", "echo", "ran"))
	p.says(p.stderr, "place 1 in line")
	if err := errors.Join(os.Remove(program), os.WriteFile(program, []byte("#!/bin/false\n"), 0o700)); err != nil {
		t.Fatal(err)
	}
	holder.signal(syscall.SIGTERM)
	if code := p.code(); code != 0 || p.stdout.String() != "ran\n" {
		t.Errorf("exit code %d, %q", code, p.stderr)
	}
}
