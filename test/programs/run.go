//go:build linux

package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// LockerIn runs etcdlocker in a control group.
func LockerIn(t testing.TB, group, endpoint string, args ...string) *Run {
	t.Helper()
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(Path("etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return StartCommand(t, nil, cmd)
}

// A Run is a run of a program of ours, or of another command.
type Run struct {
	t              testing.TB
	Cmd            *exec.Cmd
	Stdout, Stderr *Output
	Done           chan struct{} // closed when it has ended and was waited for
}

// An Output is what a program has written so far.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is for [exec.Cmd].
func (b *Output) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String returns all of it.
func (b *Output) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Start runs a program of ours, as [StartCommand] does.
func Start(t testing.TB, vars []string, name string, args ...string) *Run {
	t.Helper()
	return StartCommand(t, vars, exec.Command(Path(name), args...))
}

// StartCommand runs a command with the variables of [Environment]. It is killed if it still runs
// when the test ends, and its output is read to the end only if nothing that it has left behind
// keeps it open.
func StartCommand(t testing.TB, vars []string, cmd *exec.Cmd) *Run {
	t.Helper()
	p := &Run{t: t, Cmd: cmd, Stdout: &Output{}, Stderr: &Output{}, Done: make(chan struct{})}
	p.Cmd.Env = Environment(vars...)
	p.Cmd.Stdout, p.Cmd.Stderr = p.Stdout, p.Stderr
	p.Cmd.WaitDelay = 2 * time.Second // a busy machine takes its time to read what was said
	// A group of its own: a group that has lost its last parent outside while a process of it is
	// stopped gets a SIGHUP from the kernel, all of it. In the tests' own group that would be the
	// tests.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	if err := p.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.Cmd.Wait(); close(p.Done) }()
	t.Cleanup(p.end)
	return p
}

// busy is what etcdlocker says of the machine, and not of what a test is about.
var busy = regexp.MustCompile(`(?m)^etcdlocker: (\S+Z )?(waiting for (the command to end, |what the command has left to end, ).*|warning: (.* longer than usual \(the guard may wait .*\n.*|.*: etcd did not confirm the release, .*|cannot take back a place in line yet .*|cannot take back the place in line; it goes with its lease .*|the lease is (not renewed yet|renewed again) .*))\n`)

// Said returns what etcdlocker has said on stderr, but for what it says of a busy machine.
func (p *Run) Said() string { return busy.ReplaceAllString(p.Stderr.String(), "") }

// Shown returns the same of what it has written on a terminal.
func (p *Run) Shown() string { return busy.ReplaceAllString(p.Stdout.String(), "") }

// end ends a program that still runs: by asking, so that it leaves nothing in etcd, and if that
// does not help by force.
func (p *Run) end() {
	p.Cmd.Process.Signal(syscall.SIGTERM)
	p.Cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.Done:
	case <-time.After(2 * time.Second):
		p.Cmd.Process.Kill()
		<-p.Done
	}
	p.removeGroups()
}

// removeGroups removes the control group of an etcdlocker that a test has killed together with its
// guard. Else the next guard would do that, a minute later.
func (p *Run) removeGroups() {
	for _, dir := range p.groups() {
		cgroup.Open(dir + "\x00").Remove()
	}
}

// groups returns the control groups that guards of an etcdlocker have made.
func (p *Run) groups() (all []string) {
	mount, err := ControlGroups()
	if err != nil {
		return nil
	}
	for _, above := range []string{"", "/*", "/*/*"} {
		// The pattern is right.
		some, _ := filepath.Glob(fmt.Sprintf("%s%s/%s%d-*", mount, above, cgroup.Prefix, p.Cmd.Process.Pid))
		all = append(all, some...)
	}
	return all
}

// Code waits for the end of a program and returns its exit code.
func (p *Run) Code() int {
	p.t.Helper()
	select {
	case <-p.Done:
		return p.Cmd.ProcessState.ExitCode()
	case <-etcdtest.Context(p.t).Done():
		p.t.Fatalf("it did not end; stderr: %s", p.Stderr)
		return 0
	}
}

// Signal sends a signal to the program alone.
func (p *Run) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.Cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Stop tells a program to stop, and waits for its end.
func (p *Run) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Code()
}

// Says waits until a program has written a text, to its stdout or stderr as b says.
func (p *Run) Says(b *Output, text string) {
	p.t.Helper()
	etcdtest.Await(p.t, fmt.Sprintf("%q", text), func(context.Context) error {
		if strings.Contains(b.String(), text) {
			return nil
		}
		select {
		case <-p.Done:
			p.t.Fatalf("it ended without saying %q: %s%s", text, p.Stdout, p.Stderr)
		default:
		}
		return fmt.Errorf("it said %q", p.Stdout.String()+p.Stderr.String())
	})
}

// Renews waits until a verbose etcdlocker has renewed its lease so many times more.
func (p *Run) Renews(times int) {
	p.t.Helper()
	count := func() int { return strings.Count(p.Stderr.String(), "lease renewed") }
	want := count() + times
	etcdtest.Await(p.t, "renewals", func(context.Context) error {
		if count() >= want {
			return nil
		}
		select {
		case <-p.Done:
			p.t.Fatalf("it ended instead of renewing its lock: %s", p.Stderr)
		default:
		}
		return errors.New(p.Stderr.String())
	})
}

// Locker runs etcdlocker on a server.
func Locker(t testing.TB, endpoint string, args ...string) *Run {
	t.Helper()
	return Start(t, nil, "etcdlocker", append([]string{"-e", endpoint}, args...)...)
}

// LockerOf runs etcdlocker as a user, with more variables; as ourselves where only root could do
// otherwise.
func LockerOf(t testing.TB, uid uint32, vars []string, endpoint string, args ...string) *Run {
	t.Helper()
	cmd := exec.Command(Path("etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	if os.Geteuid() == 0 && uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return StartCommand(t, vars, cmd)
}

// Keys returns the options that name several keys.
func Keys(keys ...string) (options []string) {
	for _, key := range keys {
		options = append(options, "-k", key)
	}
	return options
}
