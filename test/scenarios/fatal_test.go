//go:build linux

package scenarios

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestSignalsOfFaults: if a process sends one, etcdlocker dies of it at once, and the command with
// it.
func TestSignalsOfFaults(t *testing.T) {
	s, key := etcdtest.Shared(t), "/fault"
	for _, sig := range []syscall.Signal{syscall.SIGILL, syscall.SIGTRAP, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS, syscall.SIGSTKFLT} {
		p := programs.StartCommand(t, nil, exec.Command("sh", "-c", `ulimit -c 0; exec "$@"`, "sh", programs.Path("etcdlocker"),
			"-e", s.Endpoint(), "-k", key, "--", "sh", "-c", "echo ready; exec sleep 1000"))
		p.Says(p.Stdout, "ready")
		p.Signal(sig)
		p.Code()
		if status := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != sig {
			t.Errorf("%v: %v, %.2000q", sig, p.Cmd.ProcessState, p.Stderr)
		}
		programs.AwaitTreeEnd(t, key)
	}
}

// TestFatalErrors: a fatal error of Go's runtime does not end etcdlocker, or what stands in for the
// command before that is executed, with the exit code of a lost lock. SIGQUIT has the runtime end a
// process as such an error does, until it is caught.
func TestFatalErrors(t *testing.T) {
	const room = 4096
	for name, words := range map[string][]string{
		"etcdlocker": {"--help"},
		// A name that is too long.
		"etcdlocker-stage": {"0", "/" + strings.Repeat("x", 2*room), "true"},
	} {
		// What they say does not fit into the pipe, and so they stand still until it is read.
		b := newBlockedStderr(t)
		if _, err := unix.FcntlInt(b.w.Fd(), unix.F_SETPIPE_SZ, room); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("bash", append([]string{"-c", `ulimit -c 0; exec -a "$0" "$@" >&3 2>&1 3>&-`,
			name, programs.Path("etcdlocker")}, words...)...)
		cmd.ExtraFiles = []*os.File{b.w}
		p := programs.StartCommand(t, nil, cmd)
		b.w.Close()
		etcdtest.Await(t, "something that it says", func(context.Context) error {
			if n, err := unix.IoctlGetInt(int(b.r.Fd()), unix.TIOCINQ); err != nil || n < room {
				return fmt.Errorf("%d bytes, %v", n, err)
			}
			return nil
		})
		p.Signal(syscall.SIGQUIT)
		go io.Copy(p.Stderr, b.r)
		p.Code()
		if status := p.Cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGABRT {
			t.Errorf("%s: %v, %.6000q", name, p.Cmd.ProcessState, p.Stderr)
		}
	}
}
