package guard

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/sched"
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

// TestGiveWay: when nothing of the command is left, etcdlocker goes before others no longer, and
// does not begin to.
func TestGiveWay(t *testing.T) {
	if _, here := again(t, nil); !here {
		return
	}
	given, err := sched.Inherited()
	if err != nil {
		t.Fatal(err)
	}
	if given.RealTime() {
		etcdtest.Skip(t, "this process runs under a real-time policy, which it keeps")
	}
	if !given.Above().Raise() {
		etcdtest.Missing(t, "the right to a real-time priority")
	}
	settled := make(chan struct{})
	g := &guarded{given: given, settles: time.AfterFunc(0, func() { close(settled) })}
	<-settled
	g.GiveWay()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		now, err := sched.Inherited()
		if err == nil && now == given {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it runs under %v, %v, want %v", now, err, given)
		}
	}
	g.settles = time.AfterFunc(time.Hour, nil)
	g.GiveWay()
	if g.settles.Stop() {
		t.Error("it will go before others")
	}
}
