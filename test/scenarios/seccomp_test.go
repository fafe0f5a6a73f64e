//go:build linux

package scenarios

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// refuser is the part of a container's engine that is older than the kernel: the program that is
// named behind it may not use the calls for descriptors of processes.
const refuser = "refuses pidfd calls"

// playRefuser executes a program that cannot use them.
func playRefuser(role string) {
	if role != refuser {
		return
	}
	runtime.LockOSThread()
	os.Unsetenv(roleVariable)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: unix.SYS_PIDFD_SEND_SIGNAL},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_PIDFD_OPEN},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	os.Stderr.WriteString(refuser + ": " + err.Error() + "\n")
	os.Exit(1)
}

// TestSignalsWhereCallsAreRefused: signals are forwarded and a lost lock ends the command, also in
// a sandbox that refuses the calls for descriptors of processes.
func TestSignalsWhereCallsAreRefused(t *testing.T) {
	s, key := etcdtest.Shared(t), "/refused"
	client := s.Client(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const script = `trap 'echo got; exit 5' TERM USR1; echo ready; while :; do sleep 0.05; done`
	for name, tt := range map[string]struct {
		act  func(p *programs.Run)
		code int
	}{
		"TERM": {func(p *programs.Run) { p.Signal(syscall.SIGTERM) }, 143},
		"USR1": {func(p *programs.Run) { p.Signal(syscall.SIGUSR1) }, 5},
		"lost": {func(*programs.Run) { client.Delete(etcdtest.Context(t), key) }, 2},
	} {
		p := programs.StartCommand(t, []string{roleVariable + "=" + refuser},
			exec.Command(self, programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "--", "sh", "-c", script))
		p.Says(p.Stdout, "ready")
		tt.act(p)
		if code := p.Code(); code != tt.code || !strings.Contains(p.Stdout.String(), "got") {
			t.Errorf("%s: exit code %d, %q, %q", name, code, p.Stdout, p.Stderr)
		}
	}
	programs.CheckFree(t, client, key)
}
