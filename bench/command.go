package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// all returns what is measured.
func (b *bench) all() []measurement {
	quantileOf := func(make func(string) (contender, error), q float64) func() (float64, error) {
		return func() (float64, error) {
			times, _, err := b.handOvers(make, 2, 40, 20*time.Millisecond)
			return quantile(times, q), err
		}
	}
	rate := func(make func(string) (contender, error)) func() (float64, error) {
		return func() (float64, error) {
			_, perSecond, err := b.handOvers(make, 10, 30, 0)
			return perSecond, err
		}
	}
	return []measurement{
		{"uncontended lock + unlock, lease at hand", "/s", ">= 0.9 x Mutex",
			func() (float64, error) { return b.uncontended(b.ours) }, func() (float64, error) { return b.uncontended(b.mutex) }},
		{"hand-over p50, 2 contenders holding 20 ms", "ms", "<= 0.5 x Mutex", quantileOf(b.ours, 0.5), quantileOf(b.mutex, 0.5)},
		{"hand-over p95, 2 contenders holding 20 ms", "ms", "<= 0.2 x Mutex", quantileOf(b.ours, 0.95), quantileOf(b.mutex, 0.95)},
		{"hand-overs, 10 contenders holding 0", "/s", ">= 4 x Mutex", rate(b.ours), rate(b.mutex)},
		{"etcdlocker -- true, wall", "ms", "<= 1.0 x etcdctl lock", b.command(b.locker, wall), b.command(b.etcdctl, wall)},
		{"etcdlocker -- true, CPU", "ms", "<= 0.95 x etcdctl lock", b.command(b.locker, cpu), b.command(b.etcdctl, cpu)},
		{"the same without its guard, wall", "ms", "<= 1.0 x etcdctl lock", b.command(b.unguarded, wall), b.command(b.etcdctl, wall)},
		{"the same without its guard, CPU", "ms", "<= 0.8 x etcdctl lock", b.command(b.unguarded, cpu), b.command(b.etcdctl, cpu)},
		{"etcdlocker with and without its guard, wall", "ms", "<= 1.05 x", b.command(b.locker, wall), b.command(b.unguarded, wall)},
		{"resident memory while holding (Pss)", "MiB", "<= 0.85 x etcdctl lock", b.memory(b.locker), b.memory(b.etcdctl)},
		{"anonymous memory of the guard, beside etcdlocker's", "MiB", "<= 1.5 and 4.5 MiB", b.anonymous(true), b.anonymous(false)},
		{"wake-ups of the guard, beside one per renewal", "/s", "<= 1.0 x", b.wakeUps, func() (float64, error) { return float64(time.Second / refresh), nil }},
	}
}

func (b *bench) locker(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(b.dir, "etcdlocker"), append([]string{"-e", b.endpoint, "-k", b.key()}, args...)...)
}

func (b *bench) unguarded(args ...string) *exec.Cmd {
	return b.locker(append([]string{"--unguarded"}, args...)...)
}

func (b *bench) etcdctl(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(b.dir, "etcdctl"), append([]string{"--endpoints", b.endpoint, "lock", b.key()}, args...)...)
}

func wall(_ *os.ProcessState, took time.Duration) time.Duration { return took }
func cpu(state *os.ProcessState, _ time.Duration) time.Duration {
	return state.UserTime() + state.SystemTime()
}

// command runs true under the lock several times and returns the median of a cost.
func (b *bench) command(make func(...string) *exec.Cmd, cost func(*os.ProcessState, time.Duration) time.Duration) func() (float64, error) {
	return func() (float64, error) {
		var costs []float64
		for range 15 {
			cmd := make("true")
			start := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				return 0, fmt.Errorf("%w: %s", err, out)
			}
			costs = append(costs, milliseconds(cost(cmd.ProcessState, time.Since(start))))
		}
		return median(costs), nil
	}
}

// memory returns the proportional resident memory of a holder without a command.
func (b *bench) memory(make func(...string) *exec.Cmd) func() (float64, error) {
	return func() (float64, error) {
		cmd := make()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
			return 0, err
		}
		size, err := pss(cmd.Process.Pid)
		cmd.Process.Signal(syscall.SIGTERM)
		io.Copy(io.Discard, stdout)
		cmd.Wait() // ends by the signal
		return size, err
	}
}

// anonymous returns the anonymous memory of the guard, or of etcdlocker itself, while a command runs.
func (b *bench) anonymous(guard bool) func() (float64, error) {
	return func() (size float64, err error) {
		failed := b.whileHolding(func(locker, its int) {
			if guard {
				locker = its
			}
			size, err = sizeOf(fmt.Sprintf("/proc/%d/status", locker), "RssAnon:")
		})
		return size, errors.Join(err, failed)
	}
}

// refresh is how often the lease is renewed while the guard's wake-ups are counted.
const refresh = 200 * time.Millisecond

// wakeUps returns how often the guard wakes up in a second.
func (b *bench) wakeUps() (perSecond float64, err error) {
	const seconds = 2
	failed := b.whileHolding(func(_, guard int) {
		time.Sleep(time.Second) // until it has settled
		before, err1 := switches(guard)
		time.Sleep(seconds * time.Second)
		after, err2 := switches(guard)
		perSecond, err = (after-before)/seconds, errors.Join(err1, err2)
	}, "-t", "4", "-r", refresh.String())
	return perSecond, errors.Join(err, failed)
}

// whileHolding runs a command that waits, and calls do with the process ids of its etcdlocker and the guard.
func (b *bench) whileHolding(do func(locker, guard int), options ...string) error {
	cmd := b.locker(append(options, "sh", "-c", "echo $PPID; read line")...)
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
		do(cmd.Process.Pid, guard)
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

func pss(pid int) (float64, error) { return sizeOf(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:") }

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
