//go:build linux

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
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
func (b *blockedStderr) locker(endpoint string, args ...string) *program {
	b.t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `exec "$0" "$@" 2>&3 3>&-`, filepath.Join(programs, "etcdlocker"), "-e", endpoint}, args...)...)
	cmd.ExtraFiles = []*os.File{b.w}
	return startCommand(b.t, nil, cmd)
}

// TestStderrBlocks: a stderr that takes nothing delays neither renewals nor the end of a command
// whose lock is lost.
func TestStderrBlocks(t *testing.T) {
	t.Parallel()
	for name, fromTheStart := range map[string]bool{"from the start": true, "later": false} {
		run := func(t *testing.T, endpoint string, args ...string) *program {
			b := newBlockedStderr(t)
			if fromTheStart {
				b.fill()
			}
			p := b.locker(endpoint, args...)
			p.says(p.stdout, "ready")
			b.fill()
			return p
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("renewed", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/renewed"
				p := run(t, s.Endpoint(), "-v", "-t", "8", "-r", "0.2", "-k", key, "--", "sh", "-c", "echo ready; sleep 10")
				if code := p.code(); code != 0 {
					t.Errorf("exit code %d", code)
				}
				free(t, s.Client(t), key)
			})
			t.Run("lost", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/lost"
				client, file := s.Client(t), filepath.Join(t.TempDir(), "pid")
				p := run(t, s.Endpoint(), "-v", "-t", "30", "--grace", "0.3", "-k", key, "--", "sh", "-c",
					`trap '' TERM; echo $$ > "$0"; echo ready; while :; do sleep 0.05; done`, file)
				pid := content(t, file)
				held(t, client, key)
				if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
					t.Fatal(err)
				}
				if code := p.code(); code != 2 {
					t.Errorf("exit code %d", code)
				}
				gone(t, pid)
				free(t, client, key)
			})
			t.Run("unrenewed", func(t *testing.T) {
				t.Parallel()
				s, key := etcdtest.Shared(t), "/stderr/"+name+"/unrenewed"
				link, client := etcdtest.NewLink(t, s.Endpoint()), s.Client(t)
				p := run(t, link.Endpoint(), "-v", "-t", "4", "-k", key, "--", "sh", "-c", "echo ready; exec sleep 1000")
				lease := held(t, client, key).Kvs[0].Lease
				link.Silence()
				endsBefore(t, client, key, lease)
				if code := p.code(); code != 2 {
					t.Errorf("exit code %d", code)
				}
			})
		})
	}
}

// TestStderrBlocksAtTheEnd: a stderr that takes nothing delays the end of etcdlocker by a moment.
func TestStderrBlocksAtTheEnd(t *testing.T) {
	t.Parallel()
	s, key, b := etcdtest.Shared(t), "/stderr/end", newBlockedStderr(t)
	p := b.locker(s.Endpoint(), "-k", key)
	held(t, s.Client(t), key)
	p.says(p.stdout, key)
	b.fill()
	begun := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.code(); code != 143 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(begun); took > 900*time.Millisecond { // it was a second
		t.Errorf("it took %v", took)
	}
	free(t, s.Client(t), key)
}

// TestStderrCloses: a reader of stderr that goes away costs no lock, and the command has the usual
// SIGPIPE.
func TestStderrCloses(t *testing.T) {
	t.Parallel()
	s, key, b := etcdtest.Shared(t), "/stderr/closes", newBlockedStderr(t)
	p := b.locker(s.Endpoint(), "-v", "-t", "30", "-r", "0.2", "-k", key, "--",
		"sh", "-c", "echo ready; sleep 1; yes 2> /dev/null | head -1 > /dev/null; exit 5")
	b.w.Close()
	p.says(p.stdout, "ready")
	b.r.Close()
	if code := p.code(); code != 5 {
		t.Errorf("exit code %d", code)
	}
	free(t, s.Client(t), key)
}
