package guard

import (
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestWaitidRefused: that a sandbox refuses the call that waits does not mean that nothing is left.
func TestWaitidRefused(t *testing.T) {
	if out, here := again(t, nil); !here {
		if strings.Contains(out, "--- SKIP") {
			etcdtest.Missing(t, "seccomp")
		}
		return
	}
	refuse(t, unix.SYS_WAITID)
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", "sleep 0.2; exit 7"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	w := &warden{pid: pid}
	if ended, status, left := w.wait(0); ended != pid || status.ExitStatus() != 7 || !left {
		t.Errorf("process %d ended with %v, left %v", ended, status, left)
	}
	if ended, _, left := w.wait(0); ended > 0 || left {
		t.Errorf("then process %d ended, left %v", ended, left)
	}
}

// refuse has the kernel refuse a system call to this process, for good.
func refuse(t *testing.T, call uint32) {
	t.Helper()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // the first call is for one thread, and the second one for all
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		etcdtest.Missing(t, "no_new_privs: "+err.Error())
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		etcdtest.Missing(t, "seccomp: "+errno.Error())
	}
}
