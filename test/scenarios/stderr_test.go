//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// A blockedStderr is a pipe that nobody reads.
type blockedStderr struct {
	t    testing.TB
	r, w *os.File
}

func newBlockedStderr(t testing.TB) *blockedStderr {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &blockedStderr{t, r, w}
}

// fill makes whoever writes to the pipe wait.
func (b *blockedStderr) fill() {
	b.t.Helper()
	// Opened again: who does not wait shares that with others who write through the same opening.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(b.w.Fd())), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, size := range []int{4096, 1} {
		for {
			_, err := unix.Write(fd, make([]byte, size))
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// locker runs etcdlocker with that as its stderr.
func (b *blockedStderr) locker(endpoint string, args ...string) *programs.Run {
	b.t.Helper()
	return b.lockerWith(nil, endpoint, args...)
}

func (b *blockedStderr) lockerWith(vars []string, endpoint string, args ...string) *programs.Run {
	b.t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `exec "$0" "$@" 2>&3 3>&-`, programs.Path("etcdlocker"), "-e", endpoint}, args...)...)
	cmd.ExtraFiles = []*os.File{b.w}
	return programs.StartCommand(b.t, vars, cmd)
}

// TestRPCLogBlocks: what gRPC has to say, as its variables ask it to, delays nothing either.
func TestRPCLogBlocks(t *testing.T) {
	t.Parallel()
	s, b := etcdtest.Shared(t), newBlockedStderr(t)
	b.fill()
	p := b.lockerWith([]string{"GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99"},
		s.Endpoint(), "-k", "/stderr/rpc", "--", "sh", "-c", "exit 7")
	if code := p.Code(); code != 7 {
		t.Errorf("exit code %d", code)
	}
	programs.CheckFree(t, s.Client(t), "/stderr/rpc")
}

// TestStderrBlocks: a stderr that takes nothing delays neither renewals nor the end of a command
// whose lock is lost.
func TestStderrBlocks(t *testing.T) {
	t.Parallel()
	for name, fromTheStart := range map[string]bool{"from the start": true, "later": false} {
		run := func(t *testing.T, endpoint string, args ...string) *programs.Run {
			b := newBlockedStderr(t)
			if fromTheStart {
				b.fill()
			}
			p := b.locker(endpoint, args...)
			p.Says(p.Stdout, "ready")
			b.fill()
			return p
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("renewed", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/renewed"
				p := run(t, s.Endpoint(), "-v", "-t", "8", "-r", "0.2", "-k", key, "--", "sh", "-c", "echo ready; sleep 10")
				if code := p.Code(); code != 0 {
					t.Errorf("exit code %d", code)
				}
				programs.CheckFree(t, s.Client(t), key)
			})
			t.Run("lost", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/lost"
				client, file := s.Client(t), filepath.Join(t.TempDir(), "pid")
				p := run(t, s.Endpoint(), "-v", "-t", "30", "--grace", "0.3", "-k", key, "--", "sh", "-c",
					`trap '' TERM; echo $$ > "$0"; echo ready; while :; do sleep 0.05; done`, file)
				pid := programs.AwaitFile(t, file)
				programs.AwaitHeld(t, client, key)
				if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
					t.Fatal(err)
				}
				if code := p.Code(); code != 2 {
					t.Errorf("exit code %d", code)
				}
				programs.AwaitEnd(t, pid)
				programs.CheckFree(t, client, key)
			})
			t.Run("unrenewed", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/unrenewed"
				link, client := etcdtest.NewLink(t, s.Endpoint()), s.Client(t)
				p := run(t, link.Endpoint(), "-v", "-t", "4", "-k", key, "--", "sh", "-c", "echo ready; exec sleep 1000")
				p.Says(p.Stdout, "ready")
				lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
				link.Silence()
				programs.CheckEndsBefore(t, client, key, lease)
				if code := p.Code(); code != 2 {
					t.Errorf("exit code %d", code)
				}
			})
		})
	}
}

// TestStderrBlocksAtTheEnd: a stderr that takes nothing does not keep etcdlocker from its end.
func TestStderrBlocksAtTheEnd(t *testing.T) {
	t.Parallel()
	s, key, b := etcdtest.Shared(t), "/stderr/end", newBlockedStderr(t)
	p := b.locker(s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	p.Says(p.Stdout, key)
	b.fill()
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	programs.CheckFree(t, s.Client(t), key)
}

// TestOutputThroughAFilter: a script sends its output through a filter and replaces itself by
// etcdlocker, which is then the parent of the filter. The filter is not the command's: whatever
// ends that, the filter gets the output to the end.
func TestOutputThroughAFilter(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	const trapped = `trap 'echo last words; exit 7' TERM; echo works; while :; do sleep 0.05; done`
	for name, tt := range map[string]struct {
		act    func(t *testing.T, p *programs.Run, key string)
		script string
		code   int
		says   []string
	}{
		"ends": {func(*testing.T, *programs.Run, string) {}, "echo works; echo last words; exit 7", 7, []string{"last words"}},
		"TERM": {func(_ *testing.T, p *programs.Run, _ string) { p.Signal(syscall.SIGTERM) }, trapped, 143, []string{"last words", "stopped by SIGTERM"}},
		"TERM, and something is left": {func(_ *testing.T, p *programs.Run, _ string) { p.Signal(syscall.SIGTERM) },
			`(trap '' TERM; exec sleep 1000) & ` + trapped, 143, []string{"last words", "stopped by SIGTERM"}},
		"key deleted": {func(t *testing.T, _ *programs.Run, key string) { client.Delete(etcdtest.Context(t), key) }, trapped, 2, []string{"last words", " lost: "}},
		"lease revoked": {func(t *testing.T, _ *programs.Run, key string) {
			client.Revoke(etcdtest.Context(t), clientv3.LeaseID(programs.AwaitHeld(t, client, key).Kvs[0].Lease))
		}, trapped, 2, []string{" lost: "}},
		"guard killed": {func(t *testing.T, p *programs.Run, key string) {
			for pid := range programs.Marked(filterVariable + "=" + key) {
				if name, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm"); strings.HasPrefix(string(name), "etcdlocker-gu") {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}, trapped, 137, []string{"the guard process was killed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key, log := "/filter/"+name, filepath.Join(t.TempDir(), "log")
			p := programs.StartCommand(t, []string{filterVariable + "=" + key}, exec.Command("sh", "-c",
				`mkfifo "$0.fifo"; (cat < "$0.fifo" > "$0"; echo "end of input" >> "$0") & exec > "$0.fifo" 2>&1; exec "$@"`, log,
				programs.Path("etcdlocker"), "-e", s.Endpoint(), "--grace", "1", "-k", key, "--", "sh", "-c", tt.script))
			logs := func(text string) {
				t.Helper()
				etcdtest.Await(t, text, func(context.Context) error {
					if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), text) {
						return fmt.Errorf("%v: %q", err, b)
					}
					return nil
				})
			}
			logs("works")
			tt.act(t, p, key)
			if code := p.Code(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			logs("end of input")
			for _, text := range tt.says {
				logs(text)
			}
			programs.CheckFree(t, client, key)
		})
	}
}

// filterVariable marks the processes of one of its parts.
const filterVariable = "ETCDLOCK_TEST_FILTER"

// TestStdoutOfALock: without a command a lock is held and released whatever becomes of stdout.
func TestStdoutOfALock(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	for name, spoil := range map[string]func(*blockedStderr){
		"blocked": (*blockedStderr).fill,
		"closed":  func(b *blockedStderr) { b.r.Close() },
	} {
		key, b := "/stdout/"+name, newBlockedStderr(t)
		spoil(b)
		cmd := exec.Command("sh", "-c", `exec "$0" "$@" >&3 3>&-`, programs.Path("etcdlocker"),
			"-e", s.Endpoint(), "-k", key)
		cmd.ExtraFiles = []*os.File{b.w}
		p := programs.StartCommand(t, nil, cmd)
		programs.AwaitHeld(t, client, key)
		if code := programs.Locker(t, s.Endpoint(), "-k", key, "--try", "true").Code(); code != 1 {
			t.Errorf("%s: it is free: exit code %d", name, code)
		}
		p.Signal(syscall.SIGTERM) // by now it has written
		if code := p.Code(); code != 143 {
			t.Errorf("%s: exit code %d, %q", name, code, p.Stderr)
		}
		programs.CheckFree(t, client, key)
	}
}

// TestStderrCloses: a reader of stderr that goes away costs no lock, and the command has the usual
// SIGPIPE.
func TestStderrCloses(t *testing.T) {
	t.Parallel()
	s, key, b := etcdtest.Shared(t), "/stderr/closes", newBlockedStderr(t)
	p := b.locker(s.Endpoint(), "-v", "-t", "30", "-r", "0.2", "-k", key, "--",
		"sh", "-c", "echo ready; sleep 1; yes 2> /dev/null | head -1 > /dev/null; exit 5")
	b.w.Close()
	p.Says(p.Stdout, "ready")
	b.r.Close()
	if code := p.Code(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	programs.CheckFree(t, s.Client(t), key)
}
