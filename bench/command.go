package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A program returns a command that takes a lock and runs another one, or waits without one.
type program func(ctx context.Context, args ...string) *exec.Cmd

// programs are those that were built for this run, and the etcd that they use.
type programs struct {
	dir string
	etcd
}

// buildPrograms builds all as they are released: without cgo.
func buildPrograms(ctx context.Context, dir string) error {
	for _, args := range [][]string{
		{"build", "-C", "..", "-o", dir, "./cmd/etcdlocker", "./cmd/etcdlockctl"},
		{"build", "-o", filepath.Join(dir, "etcdctl"), "go.etcd.io/etcd/etcdctl/v3"},
		{"build", "-o", filepath.Join(dir, "turn"), "./turn"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building: %w: %s", err, out)
		}
	}
	for _, name := range []string{"stamp", "starter"} {
		cc := exec.CommandContext(ctx, "cc", "-O2", "-static", "-o", filepath.Join(dir, name), "stamp/"+name+".c")
		if out, err := cc.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s with cc: %w: %s", name, err, out)
		}
	}
	return errors.Join(copyProgram(dir, "etcdlocker"), copyProgram(dir, "etcdctl"))
}

// copies is how many copies of a program take turns: how the kernel has laid out one file in its
// cache makes a tenth of what a start takes.
const copies = 4

var started atomic.Int64

// next runs one of the copies of a program.
func (p programs) next(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, fmt.Sprint(name, started.Add(1)%copies)), args...)
	if p.account != (account{}) {
		cmd.Env = append(os.Environ(), "ETCDCTL_USER="+p.account.user+":"+p.account.password)
	}
	return cmd
}

func copyProgram(dir, name string) error {
	content, err := os.ReadFile(filepath.Join(dir, name))
	for i := range copies {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprint(name, i)), content, 0o755)
		}
	}
	return err
}

func (p programs) locker(ctx context.Context, args ...string) *exec.Cmd {
	return p.lockerOf(newKey())(ctx, args...)
}

// lockerOf and etcdctlOf are programs that take turns on one key.
func (p programs) lockerOf(key string) program {
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return p.next(ctx, "etcdlocker", append([]string{"-e", p.endpoints[0], "-k", key}, args...)...)
	}
}

func (p programs) etcdctlOf(key string) program {
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return p.next(ctx, "etcdctl", append([]string{"--endpoints", p.endpoints[0], "lock", key}, args...)...)
	}
}

// turnOf and startedTurnOf are lines of processes that do as little as can be, without a process
// between them and their commands, and with one.
func (p programs) turnOf(key string) program {
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, filepath.Join(p.dir, "turn"), append([]string{p.endpoints[0], key}, args...)...)
	}
}

func (p programs) startedTurnOf(key string) program {
	turn := p.turnOf(key)
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return turn(ctx, append([]string{"-starter", filepath.Join(p.dir, "starter")}, args...)...)
	}
}

func (p programs) unguarded(ctx context.Context, args ...string) *exec.Cmd {
	return p.unguardedOf(newKey())(ctx, args...)
}

func (p programs) unguardedOf(key string) program {
	locker := p.lockerOf(key)
	return func(ctx context.Context, args ...string) *exec.Cmd {
		return locker(ctx, append([]string{"--unguarded"}, args...)...)
	}
}

func (p programs) etcdctl(ctx context.Context, args ...string) *exec.Cmd {
	return p.etcdctlOf(newKey())(ctx, args...)
}

// running runs true under the lock several times and returns the medians of what it takes, in ms.
func running(ctx context.Context, make program, times int) (figures, error) {
	var wall, cpu []float64
	for range times {
		cmd := make(ctx, "true")
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, out)
		}
		wall = append(wall, milliseconds(time.Since(start)))
		cpu = append(cpu, milliseconds(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
	}
	return figures{"wall": {median(wall)}, "cpu": {median(cpu)}}, nil
}

// memory returns the proportional resident memory of a holder without a command, in MiB.
func memory(ctx context.Context, make program) (figures, error) {
	cmd := make(ctx)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, err = bufio.NewReader(stdout).ReadString('\n') // it has the lock
	var size float64
	if err == nil {
		size, err = sizeOf(fmt.Sprintf("/proc/%d/smaps_rollup", cmd.Process.Pid), "Pss:")
	}
	cmd.Process.Signal(syscall.SIGTERM)
	io.Copy(io.Discard, stdout)
	cmd.Wait() // ends by the signal
	return figures{"pss": {size}}, err
}

// guardedRefresh is how often the lease is renewed while the guard is watched.
const guardedRefresh = 200 * time.Millisecond

// guard returns the anonymous memory of etcdlocker and of its guard, in MiB, and how often the
// guard wakes up for each renewal, while a command runs.
func (p programs) guard(ctx context.Context, settle, watched time.Duration) (figures, error) {
	f := figures{}
	err := p.whileHolding(ctx, func(locker, guard int) error {
		ofLocker, err1 := sizeOf(fmt.Sprintf("/proc/%d/status", locker), "RssAnon:")
		ofGuard, err2 := sizeOf(fmt.Sprintf("/proc/%d/status", guard), "RssAnon:")
		if !sleep(ctx, settle) {
			return context.Cause(ctx)
		}
		before, err3 := switches(guard)
		sleep(ctx, watched)
		after, err4 := switches(guard)
		wakeUps := (after - before) / (watched.Seconds() / guardedRefresh.Seconds())
		f["locker"], f["guard"], f["wake-ups"] = []float64{ofLocker}, []float64{ofGuard}, []float64{wakeUps}
		return errors.Join(err1, err2, err3, err4)
	}, "-t", "4", "-r", guardedRefresh.String())
	return f, err
}

// whileHolding runs a command that waits, and calls do with the process ids of its etcdlocker and
// the guard.
func (p programs) whileHolding(ctx context.Context, do func(locker, guard int) error, options ...string) error {
	cmd := p.locker(ctx, append(options, "sh", "-c", "echo $PPID; read line")...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var guard int
	_, err = fmt.Fscan(stdout, &guard)
	if err == nil {
		err = do(cmd.Process.Pid, guard)
	}
	stdin.Close()
	cmd.Wait() // the command says that it has read nothing
	return err
}

// switches returns how often the threads of a process have waited.
func switches(pid int) (n float64, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, file := range threads {
		v, err := valueOf(file, "voluntary_ctxt_switches:")
		if err != nil {
			return 0, err
		}
		n += v
	}
	return n, err
}

// sizeOf returns a size in MiB that a file of /proc gives in KiB.
func sizeOf(file, name string) (float64, error) {
	kib, err := valueOf(file, name)
	return kib / 1024, err
}

// valueOf returns the number behind a name in a file of /proc.
func valueOf(file, name string) (float64, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(content), "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}
