package etcdtest

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// CanStall reports whether [Process.Stall] can be had here: it needs strace and root.
func CanStall() bool {
	_, err := exec.LookPath("strace")
	return err == nil && os.Getuid() == 0
}

// Stall holds up what a process syncs to disk, from the next time on, until mend is called: etcd
// then answers nothing that has to do with a write or with another member. It must have been
// started [WithSync]. A process whose tracer ends goes on.
func (p *Process) Stall() (mend func()) {
	p.t.Helper()
	cmd := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "-p", fmt.Sprint(p.PID()),
		"-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=600s")
	if err := startTied(cmd); err != nil {
		p.t.Fatalf("cannot stall a member: %v", err)
	}
	return func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
}
