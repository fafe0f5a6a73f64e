package kernel_test

import (
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// TestLastSender: a signal of a process, of this one or another, is told from one of the kernel's.
// The latter is that of a timer here: what is typed has the same code.
func TestLastSender(t *testing.T) {
	const sig = syscall.SIGALRM
	if _, known := kernel.LastSender(syscall.SIGWINCH); known {
		t.Error("the sender of a signal that nobody has caught is known")
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, sig)
	defer signal.Stop(c)
	kernel.NoteSender(sig)
	kernel.NoteSender(sig) // changes nothing
	if _, known := kernel.LastSender(sig); !known {
		etcdtest.Skip(t, "not known on this architecture")
	}
	for range 100 {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		expectSender(t, c, kernel.Sender{PID: os.Getpid()})
		setTimer(t)
		expectSender(t, c, kernel.Sender{Kernel: true})
	}
	sh := exec.Command("sh", "-c", "kill -ALRM "+strconv.Itoa(os.Getpid()))
	if err := sh.Run(); err != nil {
		t.Fatal(err)
	}
	expectSender(t, c, kernel.Sender{PID: sh.Process.Pid})
}

// TestCameAfter: the order is that in which they came, whatever their numbers are.
func TestCameAfter(t *testing.T) {
	const low, high = syscall.SIGUSR1, syscall.SIGUSR2
	c := make(chan os.Signal, 1)
	signal.Notify(c, low, high)
	defer signal.Stop(c)
	kernel.NoteSender(low)
	kernel.NoteSender(high)
	if _, known := kernel.LastSender(low); !known {
		etcdtest.Skip(t, "not known on this architecture")
	}
	for i := range 100 {
		first, second := low, high
		if i%2 == 1 {
			first, second = high, low
		}
		for _, sig := range []syscall.Signal{first, second} {
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			expectSender(t, c, kernel.Sender{PID: os.Getpid()})
		}
		if !kernel.CameAfter(second, first) || kernel.CameAfter(first, second) {
			t.Fatalf("%v came after %v", first, second)
		}
	}
}

func expectSender(t *testing.T, c <-chan os.Signal, want kernel.Sender) {
	t.Helper()
	select {
	case sig := <-c:
		if got, known := kernel.LastSender(sig.(syscall.Signal)); got != want || !known {
			t.Fatalf("it came from %+v, %v, want %+v", got, known, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the signal did not come")
	}
}

// setTimer has the kernel send SIGALRM in a moment.
func setTimer(t *testing.T) {
	t.Helper()
	moment := struct{ interval, value syscall.Timeval }{value: syscall.Timeval{Usec: 1000}}
	if _, _, e := syscall.Syscall(syscall.SYS_SETITIMER, 0, uintptr(unsafe.Pointer(&moment)), 0); e != 0 {
		t.Fatal(e)
	}
}
