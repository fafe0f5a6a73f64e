//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/faults"
)

var (
	options  faults.Options
	programs faults.Programs
	dir      string
)

func TestMain(m *testing.M) {
	options.Register(flag.CommandLine)
	runner := etcdtest.Main(m)
	os.Exit(func() (code int) {
		var err error
		if dir, err = os.MkdirTemp("", "etcdlock-faults-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if programs, err = faults.Build("../..", dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "etcdctl"), "go.etcd.io/etcd/etcdctl/v3")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building etcdctl: %v\n%s", err, out)
			return 1
		}
		return runner.Run()
	}())
}

// etcdctl is the peer.
func etcdctl() faults.Locker {
	return faults.Locker{Name: peer, Command: func(j faults.Job) *exec.Cmd {
		args := []string{"--endpoints", strings.Join(j.Endpoints, ","), "lock", "--ttl", strconv.Itoa(int(j.TTL / time.Second)), j.Key}
		return exec.Command(filepath.Join(dir, "etcdctl"), append(args, j.Command...)...)
	}}
}

// TestFaults runs the trials of both, mixed: for each six of ours one of the peer's.
func TestFaults(t *testing.T) {
	ours, err1 := faults.Plan(options, programs.Etcdlocker)
	fewer := options
	fewer.Trials = options.Trials / 6
	theirs, err2 := faults.Plan(fewer, etcdctl())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	plan := append(ours, theirs...)
	rand.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	t.Logf("%d and %d trials, the first one with -faults.seed=%d", len(ours), len(theirs), options.Seed)
	faults.Run(t, options, programs, plan)
}
