package guard

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeaveSession: a guard gets a session of its own, also if something was in its process group
// that finds out whether there is room for a thread.
func TestLeaveSession(t *testing.T) {
	if _, here := again(t, &syscall.SysProcAttr{Setpgid: true}); !here {
		return
	}
	w := &warden{}
	w.reaping.Lock()
	beside := exec.Command("sleep", "1000")
	beside.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := beside.Start(); err != nil {
		t.Fatal(err)
	}
	group, err := unix.Getpgid(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		w.leaveSession(group)
	}()
	select {
	case <-left:
	case <-time.After(100 * time.Millisecond): // for one that does not wait
	}
	beside.Process.Kill()
	beside.Wait()
	w.reaping.Unlock()
	<-left
	if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
		t.Errorf("process %d is in session %d, %v", os.Getpid(), sid, err)
	}
}
