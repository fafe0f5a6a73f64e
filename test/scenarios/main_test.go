//go:build linux

// Package scenarios runs whole programs: the real etcdlocker and etcdlockctl, on a real etcd.
package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/cgroup"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// programs is the directory of the programs that were built for this run.
var programs string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		play(role)
	}
	// What we were started to ignore, as by nohup, the programs would ignore as well.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// Most of them wait for leases to end.
	os.Exit(etcdtest.Main(m).Programs(&programs, "../..").Timed().Parallel(8).Run())
}

// A program is a run of one of ours.
type program struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr *buffer
	done           chan struct{}
}

// buffer is what a program has written so far.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// runVariable tells the processes of this run of the tests from those of others.
const runVariable = "ETCDLOCK_TEST_RUN"

// runtimeDir is the runtime directory of the tests' user.
var runtimeDir = sync.OnceValue(func() string {
	dir := filepath.Join(programs, "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
})

// environment is that of a user who has set nothing of ours, and the variables given.
func environment(vars ...string) []string {
	env := []string{runVariable + "=" + programs, "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "XDG_RUNTIME_DIR=" + runtimeDir()}
	return append(env, vars...)
}

// start runs a program of ours.
func start(t testing.TB, vars []string, name string, args ...string) *program {
	t.Helper()
	return startCommand(t, vars, exec.Command(filepath.Join(programs, name), args...))
}

// startCommand runs a command. It is killed if it still runs when the test ends, and its output is
// read to the end only if nothing that it has left behind keeps it open.
func startCommand(t testing.TB, vars []string, cmd *exec.Cmd) *program {
	t.Helper()
	p := &program{t: t, cmd: cmd, stdout: &buffer{}, stderr: &buffer{}, done: make(chan struct{})}
	p.cmd.Env = environment(vars...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.WaitDelay = 100 * time.Millisecond
	// A group of its own: a group that has lost its last parent outside while a process of it is
	// stopped gets a SIGHUP from the kernel, all of it. In the tests' own group that would be the
	// tests.
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(p.end)
	return p
}

// busy is what etcdlocker says of the machine, and not of what a test is about.
var busy = regexp.MustCompile(`(?m)^etcdlocker: warning: (.* longer than usual \(the guard may wait .*\n.*|.*: etcd did not confirm the release, .*)\n`)

// said returns what etcdlocker has said on stderr, but for what it says of a busy machine.
func (p *program) said() string { return busy.ReplaceAllString(p.stderr.String(), "") }

// shown returns the same of what it has written on a terminal.
func (p *program) shown() string { return busy.ReplaceAllString(p.stdout.String(), "") }

// end ends a program that still runs: by asking, so that it leaves nothing in etcd, and if that
// does not help by force.
func (p *program) end() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.done:
	case <-time.After(2 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
	}
	p.removeGroups()
}

// removeGroups removes the control group of an etcdlocker that a test has killed together with its
// guard. Else the next guard would do that, a minute later.
func (p *program) removeGroups() {
	mount, err := cgroupMount()
	if err != nil {
		return
	}
	for _, above := range []string{"", "/*", "/*/*"} {
		// The pattern is right.
		left, _ := filepath.Glob(fmt.Sprintf("%s%s/%s%d-*", mount, above, cgroup.Prefix, p.cmd.Process.Pid))
		for _, dir := range left {
			cgroup.Open(dir + "\x00").Remove()
		}
	}
}

// code waits for the end of a program and returns its exit code.
func (p *program) code() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-etcdtest.Context(p.t).Done():
		p.t.Fatalf("it did not end; stderr: %s", p.stderr)
		return 0
	}
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// says waits until a program has written a text.
func (p *program) says(b *buffer, text string) {
	p.t.Helper()
	etcdtest.Await(p.t, fmt.Sprintf("%q", text), func(context.Context) error {
		if strings.Contains(b.String(), text) {
			return nil
		}
		select {
		case <-p.done:
			p.t.Fatalf("it ended without saying %q: %s%s", text, p.stdout, p.stderr)
		default:
		}
		return fmt.Errorf("it said %q", p.stdout.String()+p.stderr.String())
	})
}

// renews waits until a verbose etcdlocker has renewed its lease so many times more.
func (p *program) renews(times int) {
	p.t.Helper()
	count := func() int { return strings.Count(p.stderr.String(), "lease renewed") }
	want := count() + times
	etcdtest.Await(p.t, "renewals", func(context.Context) error {
		if count() >= want {
			return nil
		}
		select {
		case <-p.done:
			p.t.Fatalf("it ended instead of renewing its lock: %s", p.stderr)
		default:
		}
		return errors.New(p.stderr.String())
	})
}

// locker runs etcdlocker on a server.
func locker(t testing.TB, endpoint string, args ...string) *program {
	t.Helper()
	return start(t, nil, "etcdlocker", append([]string{"-e", endpoint}, args...)...)
}

// nobody is a user with no rights.
const nobody = 65534

// users are whose commands are tested: root's are in a control group, nobody's are found by the
// walk over descendants.
func users() map[string]uint32 {
	if os.Geteuid() != 0 {
		return map[string]uint32{"walk": uint32(os.Geteuid())}
	}
	return map[string]uint32{"group": 0, "walk": nobody}
}

// lockerOf runs etcdlocker as a user, with more variables; as ourselves where only root could do
// otherwise.
func lockerOf(t testing.TB, uid uint32, vars []string, endpoint string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(filepath.Join(programs, "etcdlocker"), append([]string{"-e", endpoint}, args...)...)
	if os.Geteuid() == 0 && uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return startCommand(t, vars, cmd)
}

// openDir returns a directory that every user may write to.
func openDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// free checks that nothing of a lock is left.
func free(t testing.TB, client *clientv3.Client, keys ...string) {
	t.Helper()
	for _, key := range keys {
		for _, kv := range etcdtest.Keys(t, client, key) {
			if left := string(kv.Key); left == key || strings.HasPrefix(left, key+"/") {
				t.Errorf("left in etcd: %q", left)
			}
		}
	}
}

// hasLease reports whether a lease has not run out or been revoked.
func hasLease(t testing.TB, client *clientv3.Client, lease int64) bool {
	t.Helper()
	resp, err := client.TimeToLive(etcdtest.Context(t), clientv3.LeaseID(lease))
	if err != nil {
		t.Fatal(err)
	}
	return resp.TTL >= 0
}

// held waits until somebody has a lock.
func held(t testing.TB, client *clientv3.Client, key string) *clientv3.GetResponse {
	t.Helper()
	var got *clientv3.GetResponse
	etcdtest.Await(t, "the lock to be held", func(ctx context.Context) error {
		resp, err := client.Get(ctx, key)
		if err == nil && len(resp.Kvs) == 0 {
			err = errors.New("nobody has it")
		}
		got = resp
		return err
	})
	return got
}

// gone waits until a process is no more: it was killed and waited for.
func gone(t testing.TB, pid string) {
	t.Helper()
	etcdtest.Await(t, "process "+pid+" to end", func(context.Context) error {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			return nil
		}
		// The main thread can be dead long before the others, and with them the open files.
		threads, err := os.ReadDir("/proc/" + pid + "/task")
		if err != nil || strings.Contains(string(stat), ") Z ") && len(threads) == 1 {
			return nil
		}
		return errors.New("it runs")
	})
}

// content waits for a file that a command writes and returns it.
func content(t testing.TB, file string) string {
	t.Helper()
	var s string
	etcdtest.Await(t, file, func(context.Context) error {
		b, err := os.ReadFile(file)
		if err == nil && !bytes.HasSuffix(b, []byte("\n")) {
			err = io.ErrUnexpectedEOF
		}
		s = strings.TrimSpace(string(b))
		return err
	})
	return s
}
