//go:build linux

package faults

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

var (
	options  Options
	programs Programs
)

func TestMain(m *testing.M) {
	options.Register(flag.CommandLine)
	runner := etcdtest.Main(m).Timed()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "etcdlock-faults-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if programs, err = Build("../..", dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return runner.Run()
	}())
}

// TestFaults: whatever hits, the promise is kept.
func TestFaults(t *testing.T) {
	plan, err := Plan(options, programs.Etcdlocker)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d trials, the first one with -faults.seed=%d", len(plan), options.Seed)
	Run(t, options, programs, plan)
}
