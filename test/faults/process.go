//go:build linux

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// leaseOver is what a holder says that was stopped: it is its own clock that tells it, or etcd.
const leaseOver = "lost: its lease"

const guardKilled = "the guard process was killed"

func processFaults() []Fault {
	const what = "the holder's processes"
	return []Fault{
		{Name: "etcdlocker killed", anyone: true, what: what, outcome: loses, code: 137, hit: signals(syscall.SIGKILL, theLocker)},
		{Name: "etcdlocker stopped", anyone: true, what: what, outcome: loses, code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker)},
		{Name: "etcdlocker stopped, not for long", anyone: true, what: what, outcome: keeps, prepare: renewsOften, hit: signals(syscall.SIGSTOP, theLocker), lasts: leavesTime},
		{Name: "etcdlocker stopped, for some time", anyone: true, what: what, hit: signals(syscall.SIGSTOP, theLocker), lasts: atRandom},
		{Name: "guard killed", what: "the guard", parent: true, bare: true, outcome: loses, code: 137, says: guardKilled, hit: signals(syscall.SIGKILL, theGuard)},
		{Name: "guard stopped", what: "the guard", parent: true, outcome: keeps, code: 137, hit: signals(syscall.SIGSTOP, theGuard), lasts: ttls(1.6)},
		{Name: "guard stopped, for some time", what: "the guard", parent: true, outcome: keeps, code: 137, hit: signals(syscall.SIGSTOP, theGuard), lasts: atRandom},
		{Name: "etcdlocker and guard stopped", what: what, parent: true, outcome: loses, code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker, theGuard)},
		{Name: "etcdlocker and guard killed", what: what, parent: true, bare: true, outcome: loses, code: 137, hit: signals(syscall.SIGKILL, theLocker, theGuard)},
		{Name: "command killed", anyone: true, what: "the command", outcome: loses, code: 137, says: "the command died of SIGKILL", hit: signals(syscall.SIGKILL, theCommand)},
		{Name: "command stopped", anyone: true, what: "the command", outcome: keeps, hit: signals(syscall.SIGSTOP, theCommand), lasts: ttls(1.4)},
	}
}

func theLocker(t *trial) int { return t.holder.cmd.Process.Pid }

// theGuard is the locker's only child.
func theGuard(t *trial) int {
	for _, pid := range etcdtest.Children(theLocker(t)) {
		return pid
	}
	return 0
}

func theCommand(t *trial) int {
	if first := t.first(t.holder); first != nil {
		return first.PID
	}
	return 0
}

// signals sends a signal to processes of the holder's. Those that were stopped are continued in the
// end.
func signals(sig syscall.Signal, which ...func(*trial) int) func(*trial) func() {
	return func(t *trial) func() {
		var hit []int // descriptors of processes
		for _, of := range which {
			if fd, err := t.process(of(t)); err == nil {
				hit = append(hit, fd)
			} else if _, alone := t.alone(); alone && t.early == "" {
				t.early = fmt.Sprintf("the process to be hit is not there: %v", err)
			}
		}
		for _, fd := range hit {
			if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != unix.ESRCH {
				t.require(err)
			}
		}
		return func() {
			for _, fd := range hit {
				if sig == syscall.SIGSTOP {
					unix.PidfdSendSignal(fd, syscall.SIGCONT, nil, 0)
				}
				unix.Close(fd)
			}
		}
	}
}

// process opens a descriptor of a process of this trial's. Its id may have gone to another one
// meanwhile.
func (t *trial) process(pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, err
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err == nil && !bytes.Contains(environ, []byte(t.mark()+"\x00")) {
		err = errors.New("it is another one's")
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}
