//go:build linux

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestGuard: whichever one process is killed or stopped, nothing of the tree runs when the lease
// runs out.
func TestGuard(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		sig    syscall.Signal
		guard  bool // it is the guard's turn
		ttl    string
		expect int    // the exit code, if etcdlocker lives to have one
		uid    uint32 // nobody's commands have no control group
	}{
		// At once, not when validity ends.
		{"etcdlocker killed", syscall.SIGKILL, false, "300", -1, 0},
		{"etcdlocker stopped", syscall.SIGSTOP, false, "4", -1, 0}, // before the lease ends
		{"guard killed", syscall.SIGKILL, true, "300", 137, 0},
		{"etcdlocker killed, no group", syscall.SIGKILL, false, "300", -1, programs.Nobody},
		{"guard killed, no group", syscall.SIGKILL, true, "300", 137, programs.Nobody},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/guard/"+strings.ReplaceAll(tt.name, " ", "-")
			p := programs.LockerOf(t, tt.uid, nil, s.Endpoint(), append([]string{"-t", tt.ttl, "-k", key, "--"}, programs.StubbornTree...)...)
			p.Says(p.Stdout, "ready")
			etcdtest.Await(t, "the whole tree", func(context.Context) error {
				if n := len(programs.Marked("ETCD_LOCK_KEY=" + key)); n < 3 {
					return fmt.Errorf("only %d processes", n)
				}
				return nil
			})
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			pid := p.Cmd.Process.Pid
			if tt.guard {
				pid = programs.GuardOf(t, p)
			}
			before := time.Now()
			if err := syscall.Kill(pid, tt.sig); err != nil {
				t.Fatal(err)
			}
			if tt.sig == syscall.SIGSTOP {
				programs.CheckEndsBefore(t, client, key, lease)
				return
			}
			programs.AwaitTreeEnd(t, key)
			if !tt.guard && tt.sig == syscall.SIGKILL {
				p.Says(p.Stderr, fmt.Sprintf("its guard has killed the command; lock %q is not released", key))
			}
			if took := time.Since(before); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			if tt.expect < 0 {
				if !programs.HasLease(t, client, lease) {
					t.Error("the lease had run out before the tree was dead")
				}
				return
			}
			if code := p.Code(); code != tt.expect || !strings.Contains(p.Stderr.String(), "the guard process was killed") {
				t.Errorf("exit code %d, %q", code, p.Stderr)
			}
			programs.CheckFree(t, client, key)
		})
	}
}

// TestDesertedWithMore: the guard of several locks says so, and also of what the command has left.
func TestDesertedWithMore(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), append(programs.Keys("/deserted/a", "/deserted/b", "/deserted/c"), "-t", "120", "--grace", "60", "--", "sh", "-c",
		`(trap '' TERM; echo ready; while :; do sleep 0.05; done) & trap 'exit 5' TERM; wait`)...)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGTERM)
	p.Says(p.Stderr, "waiting for what the command has left to end")
	p.Signal(syscall.SIGKILL)
	p.Says(p.Stderr, `its guard has killed what the command had left; lock "/deserted/a" and 2 more are not released, they free themselves`)
	programs.AwaitTreeEnd(t, "/deserted/a")
}

// TestDesertedAtALongKey: the guard does not wait for who reads stderr, however long the line is.
func TestDesertedAtALongKey(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	key := "/" + strings.Repeat("\x01", 4000)
	cmd := exec.Command("sh", "-c", `exec "$@" 2>&3 3>&-`, "sh", programs.Path("etcdlocker"), "-e", s.Endpoint(), "-k", key, "--", "sh", "-c", "echo ready; exec sleep 1000")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	size, err := unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, 2*os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write.Write(make([]byte, size-os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{write}
	p := programs.StartCommand(t, nil, cmd)
	write.Close()
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	p.Signal(syscall.SIGKILL)
	etcdtest.Await(t, "the guard to end", func(context.Context) error {
		if err := syscall.Kill(guard, 0); err != syscall.ESRCH {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
}

// TestTheGuardSleeps: while all is well it wakes up once for each renewal.
func TestTheGuardSleeps(t *testing.T) {
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-v", "-t", "20", "-r", "0.1", "-k", "/asleep", "--", "sh", "-c", "echo ready; exec sleep 1000")
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	p.Renews(5)   // it has settled by then
	for range 5 { // on a busy machine threads can wait for each other, and be counted for that
		woken, renewals := wakeUps(t, guard), strings.Count(p.Stderr.String(), "lease renewed")
		p.Renews(20)
		woken, renewals = wakeUps(t, guard)-woken, strings.Count(p.Stderr.String(), "lease renewed")-renewals
		t.Logf("%d wake-ups, %d renewals", woken, renewals)
		// One renewal may be counted late at either end. Go's runtime looks after itself once a
		// minute.
		if woken <= renewals+3 {
			return
		}
	}
	t.Error("it wakes up more often than it has to")
}

// wakeUps returns how often the threads of a process have waited for something.
func wakeUps(t testing.TB, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		status, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(status), "\n") {
			var switches int
			if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &switches); err == nil {
				n += switches
			}
		}
	}
	return n
}

// TestLongerThanTheTTL: the guard hears of renewals. The TTL rides out an etcd whose disk stands
// still for some seconds.
func TestLongerThanTheTTL(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), "-t", "10", "-k", "/longer", "--", "sh", "-c", "sleep 12; exit 4")
	if code := p.Code(); code != 4 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestStoppedLockerComesBack: it finds that the lock is lost, and says so.
func TestStoppedLockerComesBack(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), append([]string{"-t", "2", "-k", "/back", "--"}, programs.StubbornTree...)...)
	p.Says(p.Stdout, "ready")
	p.Signal(syscall.SIGSTOP)
	programs.AwaitTreeEnd(t, "/back")
	p.Signal(syscall.SIGCONT)
	if code := p.Code(); code != 2 || !strings.Contains(p.Stderr.String(), "lost") {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestStoppedGuard: it goes on when validity would have ended by what it knew, learns of the
// renewals, and nothing else happens.
func TestStoppedGuard(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	enough := filepath.Join(t.TempDir(), "enough")
	p := programs.Locker(t, s.Endpoint(), "-v", "-t", "12", "-r", "4", "-k", "/guard/goes-on", "--", "sh", "-c", `echo ready; until [ -e "$0" ]; do sleep 0.05; done; exit 7`, enough)
	p.Says(p.Stdout, "ready")
	guard := programs.GuardOf(t, p)
	for range 2 {
		if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		p.Renews(4) // more than a TTL
	}
	programs.Create(t, enough)
	if code := p.Code(); code != 7 {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestStandstill: a guard that could not act when validity ended, because the machine stood still,
// acts afterwards.
func TestStandstill(t *testing.T) {
	t.Parallel()
	group := programs.ControlGroup(t)
	s := etcdtest.Shared(t)
	p := programs.Locker(t, s.Endpoint(), append([]string{"-v", "-t", "6", "-k", "/guard/standstill", "--"}, programs.StubbornTree...)...)
	p.Says(p.Stdout, "ready")
	p.Renews(1)
	p.Signal(syscall.SIGSTOP)
	_, valid, _ := strings.Cut(p.Stderr.String(), "valid_for=")
	left, err := time.ParseDuration(strings.Fields(valid)[0])
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(left)
	for _, w := range [][2]string{{"/cgroup.procs", strconv.Itoa(programs.GuardOf(t, p))}, {"/cgroup.freeze", "1"}} {
		if err := os.WriteFile(group+w[0], []byte(w[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Until(end.Add(300 * time.Millisecond)))
	if err := os.WriteFile(group+"/cgroup.freeze", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	programs.AwaitTreeEnd(t, "/guard/standstill")
	p.Signal(syscall.SIGKILL)
	p.Code()
}

// TestBothAtOnce: etcdlocker and its guard, killed together, take the command itself with them.
// Stopped together, the guard goes on when validity ends, and takes everything.
func TestBothAtOnce(t *testing.T) {
	t.Parallel()
	trees := map[syscall.Signal][]string{
		syscall.SIGKILL: {"sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.05; done`},
		syscall.SIGSTOP: programs.StubbornTree,
	}
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/both/"+name
			p := programs.Locker(t, s.Endpoint(), append([]string{"-t", "3", "-k", key, "--"}, trees[sig]...)...)
			p.Says(p.Stdout, "ready")
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			guard := programs.GuardOf(t, p)
			p.Signal(syscall.SIGSTOP) // so that it cannot act between the two
			syscall.Kill(guard, sig)
			if sig == syscall.SIGKILL {
				p.Signal(sig)
			}
			programs.CheckEndsBefore(t, client, key, lease)
		})
	}
}

// A phase of a lock's life, and how to get there.
type phase struct {
	name  string
	reach func(t *testing.T, s *etcdtest.Server, p *programs.Run, key string)
}

// says on TERM that it was asked to end, and does not; as does its child in a session of its own.
var askedTree = []string{"sh", "-c", `trap 'echo asked' TERM; setsid sh -c 'trap "" TERM; while :; do sleep 0.05; done' > /dev/null 2>&1 & echo ready; while :; do sleep 0.05; done`}

var phases = []phase{
	{"waiting", func(t *testing.T, s *etcdtest.Server, p *programs.Run, key string) {
		p.Says(p.Stderr, "place 1 in line")
	}},
	{"running", func(t *testing.T, s *etcdtest.Server, p *programs.Run, key string) { p.Says(p.Stdout, "ready") }},
	{"told to stop", func(t *testing.T, s *etcdtest.Server, p *programs.Run, key string) {
		p.Says(p.Stdout, "ready")
		p.Signal(syscall.SIGTERM)
		p.Says(p.Stdout, "asked")
	}},
	{"losing the lock", func(t *testing.T, s *etcdtest.Server, p *programs.Run, key string) {
		p.Says(p.Stdout, "ready")
		if _, err := s.Client(t).Delete(etcdtest.Context(t), key); err != nil {
			t.Fatal(err)
		}
		p.Says(p.Stdout, "asked")
	}},
}

// TestAnyPhase: whichever of the two is killed or stopped, and whenever, nothing of the tree runs
// when the lease is gone. A guard that had not started its command yet is replaced.
func TestAnyPhase(t *testing.T) {
	t.Parallel()
	for _, phase := range phases {
		for _, victim := range []string{"etcdlocker", "guard"} {
			for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
				name := strings.ReplaceAll(fmt.Sprint(phase.name, " ", victim, " ", sig), " ", "-")
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s, key := etcdtest.Shared(t), "/phase/"+name
					client := s.Client(t)
					var holder *programs.Run
					if phase.name == "waiting" {
						holder = programs.Locker(t, s.Endpoint(), "-k", key)
						programs.AwaitHeld(t, client, key)
					}
					p := programs.Locker(t, s.Endpoint(), append([]string{"-t", "6", "--grace", "2", "-k", key, "--"}, askedTree...)...)
					phase.reach(t, s, p, key)
					lease := newestPlace(t, client, key).Lease
					pid := p.Cmd.Process.Pid
					if victim == "guard" {
						pid = programs.GuardOf(t, p)
					}
					if err := syscall.Kill(pid, sig); err != nil {
						t.Fatal(err)
					}
					if holder != nil {
						holder.Signal(syscall.SIGTERM)
						if victim == "guard" {
							p.Says(p.Stdout, "ready")
						}
					}
					if victim == "guard" && (holder != nil || sig == syscall.SIGSTOP) {
						p.Signal(syscall.SIGKILL) // a guard that goes on is no reason to end
					}
					programs.CheckEndsBefore(t, client, key, lease)
				})
			}
		}
	}
}

// TestGuardOutlivesSignals: the kernel sends HUP to a guard that is stopped when etcdlocker dies,
// and a service manager sends TERM to whatever there is, perhaps before there is a command.
func TestGuardOutlivesSignals(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/survives"
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	p := programs.Locker(t, s.Endpoint(), "-k", key, "--", "sh", "-c", "echo ready; sleep 1000")
	p.Says(p.Stderr, "place 1 in line")
	guard := programs.ReadyGuardOf(t, p)
	caught, inherited := uint64(0), uint64(0)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP} {
		if signal.Ignored(sig) {
			inherited |= 1 << (sig - 1)
			continue
		}
		caught |= 1 << (sig - 1)
		if err := syscall.Kill(guard, sig); err != nil {
			t.Fatal(err)
		}
	}
	holder.Signal(syscall.SIGTERM)
	p.Says(p.Stdout, "ready")
	if got := programs.GuardOf(t, p); got != guard {
		t.Errorf("the guard was process %d, and is %d", guard, got)
	}
	// While Go's runtime is told to ignore one, that which is on its way ends the process.
	etcdtest.Await(t, "the guard to leave the session, and to catch what it did not before", func(context.Context) error {
		if ignores, catches := signals(t, guard, "SigIgn"), signals(t, guard, "SigCgt"); ignores&caught != 0 || catches&caught != caught {
			t.Fatalf("the guard ignores %x and catches %x, of %x", ignores, catches, caught)
		}
		if session, err := unix.Getsid(guard); err != nil || session != guard {
			return fmt.Errorf("its session is %d: %v", session, err)
		}
		return nil
	})
	if ignores := signals(t, programs.ChildOf(t, guard), "SigIgn"); ignores&(caught|inherited) != inherited {
		t.Errorf("the command ignores %x, and should %x", ignores, inherited)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}

// TestBlockedSignals: the command, and what checks it, have those signals blocked that etcdlocker
// was started with, though its guard is started with all of them blocked.
func TestBlockedSignals(t *testing.T) {
	t.Parallel()
	const blocked = 1<<(syscall.SIGUSR2-1) | 1<<(40-1)
	file := filepath.Join(t.TempDir(), "blocked")
	runtime.LockOSThread()
	before, err := kernel.SetSignalMask(blocked)
	if err != nil {
		t.Fatal(err)
	}
	p := programs.Locker(t, etcdtest.Shared(t).Endpoint(), "-k", "/blocked", "--pulse-cmd", "exec grep SigBlk /proc/self/status > "+file, "--", "sleep", "1000")
	kernel.SetSignalMask(before)
	runtime.UnlockOSThread()
	etcdtest.Await(t, "the first check", func(context.Context) error {
		said, err := os.ReadFile(file)
		if expect := fmt.Sprintf("SigBlk:\t%016x\n", blocked); err == nil && string(said) != expect {
			return fmt.Errorf("it has %q, and should %q", said, expect)
		}
		return err
	})
	for _, child := range etcdtest.Children(programs.GuardOf(t, p)) { // the command is one
		if blocks := signals(t, child, "SigBlk"); blocks != blocked {
			t.Errorf("process %d blocks %x, and should %x", child, blocks, blocked)
		}
	}
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// TestStoppedWithoutACommand: a guard that waits for its turn goes with its etcdlocker, also one
// that is about to be stopped then.
func TestStoppedWithoutACommand(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/without"
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, s.Client(t), key)
	var guards []int
	for range 30 {
		p := programs.Locker(t, s.Endpoint(), "-k", key, "--", "true")
		p.Says(p.Stderr, "in line")
		guard := programs.ReadyGuardOf(t, p)
		if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		p.Signal(syscall.SIGKILL)
		p.Code()
		guards = append(guards, guard)
	}
	for _, guard := range guards {
		programs.AwaitEnd(t, strconv.Itoa(guard))
	}
	holder.Signal(syscall.SIGTERM)
}

// TestStoppedGuardIsContinuedAhead: a guard that is stopped goes on some time before validity ends,
// so that it has a processor by then. It finds etcdlocker gone, and ends everything.
func TestStoppedGuardIsContinuedAhead(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/ahead"
	client := s.Client(t)
	p := programs.Locker(t, s.Endpoint(), append([]string{"-t", "24", "-k", key, "--"}, askedTree...)...)
	p.Says(p.Stdout, "ready")
	lease, guard := clientv3.LeaseID(newestPlace(t, client, key).Lease), programs.GuardOf(t, p)
	etcdtest.Await(t, "the guard to leave the session: the kernel continues what is stopped in one that loses its last parent", func(context.Context) error {
		if session, err := unix.Getsid(guard); err != nil || session != guard {
			return fmt.Errorf("its session is %d: %v", session, err)
		}
		return nil
	})
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGKILL)
	etcdtest.Await(t, "the tree to die", func(context.Context) error {
		if left := programs.Running("ETCD_LOCK_KEY=" + key); len(left) > 0 {
			return fmt.Errorf("these run: %v", left)
		}
		return nil
	})
	about, err := client.TimeToLive(etcdtest.Context(t), lease)
	if err != nil || about.TTL < 1 { // three seconds are left when it is continued
		t.Errorf("the lease has %+v to live: %v", about, err)
	}
}

// TestStoppedWhileItStarts: so does a guard that is stopped while its command is being executed,
// and does not know yet that it runs.
func TestStoppedWhileItStarts(t *testing.T) {
	t.Parallel()
	s, key := etcdtest.Shared(t), "/starts"
	client := s.Client(t)
	holder := programs.Locker(t, s.Endpoint(), "-k", key)
	programs.AwaitHeld(t, client, key)
	shell := filepath.Join(t.TempDir(), "sh")
	content, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(shell, content, 0o700); err != nil {
		t.Fatal(err)
	}
	p := programs.Locker(t, s.Endpoint(), "-t", "24", "-k", key, "--", shell, "-c", "echo ready; sleep 1000")
	p.Says(p.Stderr, "place 1 in line")
	arrived, release := heldFile(t, shell)
	holder.Signal(syscall.SIGTERM)
	<-arrived
	lease, guard := clientv3.LeaseID(newestPlace(t, client, key).Lease), programs.GuardOf(t, p)
	p.Signal(syscall.SIGSTOP)
	if err := syscall.Kill(guard, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	release()
	p.Says(p.Stdout, "ready")
	stopped(t, guard, true)
	stopped(t, guard, false)
	about, err := client.TimeToLive(etcdtest.Context(t), lease)
	if err != nil || about.TTL < 1 { // three seconds are left when it is continued
		t.Errorf("the lease has %+v to live: %v", about, err)
	}
}

// heldFile has the next one who opens a file wait, until release is called. Arrived is closed when
// somebody waits.
func heldFile(t testing.TB, name string) (arrived <-chan struct{}, release func()) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	broken, closed := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(broken, syscall.SIGIO)
	t.Cleanup(func() { signal.Stop(broken) })
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-broken
		close(closed)
	}()
	return closed, func() {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
			t.Error(err)
		}
	}
}

// newestPlace returns the last place in the line for a lock.
func newestPlace(t testing.TB, client *clientv3.Client, key string) *mvccpb.KeyValue {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), key+"/", clientv3.WithLastCreate()...)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	return resp.Kvs[0]
}

// TestAnyMoment: the same at moments that nobody has chosen, most of them while the command is
// being started. The command is one process: a guard that is stopped and etcdlocker killed are both
// at once, and then that is what is promised.
func TestAnyMoment(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	for i := range 24 {
		key := fmt.Sprint("/moment/", i)
		sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[i%2]
		victim := []string{"etcdlocker", "guard"}[i/2%2]
		t.Run(fmt.Sprint(victim, sig, i), func(t *testing.T) {
			t.Parallel()
			client := s.Client(t)
			p := programs.Locker(t, s.Endpoint(), "-t", "2", "-k", key, "--", "sh", "-c", `trap '' TERM; while :; do sleep 0.05; done`)
			lease := programs.AwaitHeld(t, client, key).Kvs[0].Lease
			time.Sleep(time.Duration(i) * time.Millisecond) // the moment
			pid := p.Cmd.Process.Pid
			if victim == "guard" {
				pid = programs.GuardOf(t, p)
			}
			struck, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			// A guard that was stopped before it had its order executes nothing, and would stay.
			t.Cleanup(func() { struck.Kill() })
			struck.Signal(sig)
			time.Sleep(time.Duration(i) * time.Millisecond)
			if victim == "guard" {
				p.Cmd.Process.Kill() // if it has not ended
			}
			programs.CheckEndsBefore(t, client, key, lease)
		})
	}
}

// TestProgramReplaced: what runs goes on, whatever becomes of the file that it was started from.
func TestProgramReplaced(t *testing.T) {
	s := etcdtest.Shared(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "etcdlocker")
	content, err := os.ReadFile(programs.Path("etcdlocker"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, content, 0o700); err != nil {
		t.Fatal(err)
	}
	holder := programs.Locker(t, s.Endpoint(), "-k", "/replaced")
	programs.AwaitHeld(t, s.Client(t), "/replaced")
	p := programs.StartCommand(t, nil, exec.Command(program, "-e", s.Endpoint(), "-k", "/replaced", "echo", "ran"))
	p.Says(p.Stderr, "place 1 in line")
	if err := errors.Join(os.Remove(program), os.WriteFile(program, []byte("#!/bin/false\n"), 0o700)); err != nil {
		t.Fatal(err)
	}
	// Its guard is executed before that, so it is made to execute another one.
	if err := syscall.Kill(programs.GuardOf(t, p), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	holder.Signal(syscall.SIGTERM)
	if code := p.Code(); code != 0 || p.Stdout.String() != "ran\n" {
		t.Errorf("exit code %d, %q", code, p.Stderr)
	}
}
