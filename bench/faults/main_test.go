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

// TestFaults runs the trials of both, mixed: for each twelve of ours one of the peer's.
func TestFaults(t *testing.T) {
	ours, err1 := faults.Plan(options, programs.Etcdlocker)
	fewer := options
	fewer.Trials = options.Trials / 12
	theirs, err2 := faults.Plan(fewer, etcdctl())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	plan := append(ours, theirs...)
	rand.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	t.Logf("%d and %d trials, the first one with -faults.seed=%d", len(ours), len(theirs), options.Seed)
	faults.Run(t, options, programs, plan)
}

// TestTable: the worst of a row is shown, also where all of it is before the end of validity, and
// what is exempt counts by itself.
func TestTable(t *testing.T) {
	ms := time.Millisecond
	results := []faults.Result{
		{Locker: "etcdlock", Row: "network silent", User: faults.Root, Late: -300 * ms, Death: 3100 * ms, HandOver: 5 * time.Second},
		{Locker: "etcdlock", Row: "network silent", User: faults.Ordinary, Late: -20 * ms, Death: 2 * time.Second},
		{Locker: "etcdlock", Row: "network silent", User: faults.Ordinary, Held: true},
		{Locker: "etcdlock", Row: "network refused", User: faults.Root, Late: 1200 * ms, Overdue: true, Problems: []string{"death"}},
		{Locker: "etcdlock", Row: "network refused", User: faults.Root, Exempt: true, Overlap: 70 * ms},
		{Locker: "etcdlock", Row: "network refused", User: faults.Root, Starved: true, Held: true},
		{Locker: peer, Row: "network silent", Death: time.Second, Late: time.Second},
	}
	table := full(results)
	for _, want := range []string{
		"none lost. 1 more trials",
		"5 trials of etcdlock, 3 with root's lockers and 2 with an ordinary user's: overlap 0 without force, at most 0 with it and 70 ms in the exempt rows; 1 deaths later than",
		"| network silent | 3 | 1 | 0 | 3.1 s | -20 ms | 5.0 s | 1 | 0 | 1.0 s | 0 |",
		"| network refused | 2 | 0 | 70 ms | 0 | 1.2 s | 0 | - | - | - | - |",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("%q is missing in\n%s", want, table)
		}
	}
}
