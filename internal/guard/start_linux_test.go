package guard

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestACommandRunsOnce: another guard may only be tried if the last one has surely not begun to
// execute the command. The test says what the guard would say, and then that is killed.
func TestACommandRunsOnce(t *testing.T) {
	tests := map[string]struct {
		says   [][]byte
		expect error
		again  bool
	}{
		"killed before":      {nil, errGone, true},
		"refused for time":   {[][]byte{numbers(failed, uint64(syscall.ETIME), tooLateToStart)}, errLate, true},
		"killed meanwhile":   {[][]byte{numbers(begun, 0, 0)}, ErrKilled, false},
		"cannot be executed": {[][]byte{numbers(begun, 0, 0), numbers(failed, uint64(syscall.ENOEXEC), 0)}, syscall.ENOEXEC, false},
		"nonsense":           {[][]byte{[]byte("x")}, errGone, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			command, pid, theirs := played(t)
			defer command.Close()
			go func() {
				defer syscall.Close(theirs)
				syscall.Read(theirs, make([]byte, maxMessage)) // the order
				for _, m := range tt.says {
					if err := sendTo(theirs, m, -1); err != nil {
						t.Error(err)
					}
				}
				syscall.Kill(pid, syscall.SIGKILL)
			}()
			now := boottime.Now()
			err := command.Start(context.Background(), Order{By: now.Add(time.Minute), ValidUntil: now.Add(time.Hour), Lease: 1})
			if !errors.Is(err, tt.expect) || errors.Is(err, ErrGone) != tt.again {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestStartInTimeOrNotAtAll: a guard that does not answer is killed when it is too late, or the
// lock is lost.
func TestStartInTimeOrNotAtAll(t *testing.T) {
	lost, cancel := context.WithCancel(context.Background())
	cancel()
	for name, tt := range map[string]struct {
		ctx context.Context
		by  time.Duration
	}{
		"too late":         {context.Background(), 10 * time.Millisecond},
		"the lock is lost": {lost, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			command, pid, theirs := played(t)
			syscall.Close(theirs)
			defer command.Close()
			now := boottime.Now()
			if err := command.Start(tt.ctx, Order{By: now.Add(tt.by), ValidUntil: now.Add(time.Hour), Lease: 1}); !errors.Is(err, ErrGone) {
				t.Errorf("%v", err)
			}
			if syscall.Kill(pid, 0) == nil {
				t.Error("the guard lives")
			}
		})
	}
}

// TestBegunIsInTime: a guard that has begun to execute the command is waited for beyond the instant
// by which it had to begin, as its lock is renewed meanwhile.
func TestBegunIsInTime(t *testing.T) {
	command, pid, theirs := played(t)
	defer command.Close()
	by := boottime.Now().Add(2 * time.Second) // for a guard that may have to wait for a processor
	go func() {
		defer syscall.Close(theirs)
		syscall.Read(theirs, make([]byte, maxMessage)) // the order
		sendTo(theirs, numbers(begun, 0, 0), -1)
		time.Sleep(by.Add(50 * time.Millisecond).Until())
		sendTo(theirs, numbers(started, uint64(pid), 0), -1)
	}()
	if err := command.Start(context.Background(), Order{By: by, ValidUntil: by.Add(time.Hour), Lease: 1}); err != nil {
		t.Error(err)
	}
}

// TestRefusals: the guard's reasons arrive as what they are.
func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		errno, why uint64
		expect     error
	}{
		"no timers":       {uint64(syscall.EAGAIN), cannotAlarm, ErrNoTimers},
		"lowest priority": {uint64(syscall.EINVAL), cannotBeBelow, ErrLowest},
		"not executable":  {uint64(syscall.EACCES), cannotExecute, syscall.EACCES},
	} {
		t.Run(name, func(t *testing.T) {
			command, pid, theirs := played(t)
			defer command.Close()
			go func() {
				defer syscall.Close(theirs)
				syscall.Read(theirs, make([]byte, maxMessage)) // the order
				sendTo(theirs, numbers(failed, tt.errno, tt.why), -1)
				syscall.Kill(pid, syscall.SIGKILL)
			}()
			now := boottime.Now()
			err := command.Start(context.Background(), Order{By: now.Add(time.Minute), ValidUntil: now.Add(time.Hour), Lease: 1})
			if !errors.Is(err, tt.expect) || errors.Is(err, ErrGone) {
				t.Errorf("%v, want %v", err, tt.expect)
			}
		})
	}
}

// played returns a command whose guard does nothing, and its end of the channel, of which the guard
// has a copy.
func played(t *testing.T) (c Command, pid, theirs int) {
	t.Helper()
	ours, theirs, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	pid, err = syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	l := &Launched{conn: ours, pid: pid}
	if c, err = l.Command("/bin/true", "", 1); err != nil {
		t.Fatal(err)
	}
	return c, pid, theirs
}

// TestNoMoreNews: the guard has said that it kills everything, and then it was killed itself. This
// process begins when it hears that, and not when the guard would have been done.
func TestNoMoreNews(t *testing.T) {
	command, pid, theirs := played(t)
	defer command.Close()
	g := command.(*guarded)
	for _, m := range [][]byte{numbers(begun, 0, 0), numbers(end, 0, 0)} {
		if err := sendTo(theirs, m, -1); err != nil {
			t.Fatal(err)
		}
	}
	etcdtest.Await(t, "the guard's words", func(context.Context) error {
		if !g.begun.Load() || !g.ending.Load() {
			return errors.New("not heard yet")
		}
		return nil
	})
	if g.Kill(); g.killer.Begun() {
		t.Error("it kills beside a guard that does so")
	}
	syscall.Close(theirs)
	syscall.Kill(pid, syscall.SIGKILL)
	<-g.heard
	if g.Kill(); !g.killer.Begun() {
		t.Error("nobody kills")
	}
}

// TestLazyWatch: what is started with a lazy watch begins with its slack, and the thread that has
// started it gets its own back.
func TestLazyWatch(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := kernel.TimerSlack()
	if before == 0 {
		etcdtest.Skip(t, "this thread has no timer slack: it runs under a real-time policy")
	}
	had, restore := lazyWatch()
	slack, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
	restore()
	if got, want := strings.TrimSpace(string(slack)), strconv.Itoa(int(watchSlack)); err != nil || got != want {
		t.Errorf("what was started has a slack of %q, %v, want %s", got, err, want)
	}
	if now := kernel.TimerSlack(); had != before || now != before {
		t.Errorf("it said %v and left %v, want %v", had, now, before)
	}
}
