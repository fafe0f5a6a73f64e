package main

import (
	"bufio"
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
		{"etcdlocker -- true, CPU", "ms", "<= 0.8 x etcdctl lock", b.command(b.locker, cpu), b.command(b.etcdctl, cpu)},
		{"resident memory while holding (Pss)", "MiB", "<= 0.85 x etcdctl lock", b.memory(b.locker), b.memory(b.etcdctl)},
	}
}

func (b *bench) locker(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(b.dir, "etcdlocker"), append([]string{"-e", b.endpoint, "-k", b.key()}, args...)...)
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

func pss(pid int) (float64, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(content), "\n") {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no Pss of process %d", pid)
}
