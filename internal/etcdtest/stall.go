package etcdtest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
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
	cmd := exec.Command("strace", "-f", "-o", os.DevNull, "-p", fmt.Sprint(p.PID()),
		"-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_enter=86400s")
	said, err := cmd.StderrPipe()
	if err == nil {
		err = startTied(cmd)
	}
	if err != nil {
		p.t.Fatalf("cannot stall a member: %v", err)
	}
	lines := bufio.NewReader(said)
	for line := ""; err == nil && !strings.Contains(line, "attached"); {
		line, err = lines.ReadString('\n')
	}
	drained := make(chan struct{})
	go func() { io.Copy(io.Discard, lines); close(drained) }()
	mend = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-drained
		cmd.Wait()
	}
	if err != nil {
		mend()
		p.t.Fatalf("strace does not stall a member: %v", err)
	}
	return mend
}
