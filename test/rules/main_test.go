//go:build linux

// Package rules holds the source and the documents to the rules of the project: what may import
// what, how large packages are, which words are in them, and that documents say what programs do.
package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/gentle"
)

// programs is the directory of the programs that were built for this run.
var programs string

// TestMain runs the tests in the root of the project.
func TestMain(m *testing.M) {
	gentle.GiveWay()
	if err := os.Chdir("../.."); err != nil {
		panic(err)
	}
	os.Exit(etcdtest.Main(m).Programs(&programs, ".").Run())
}

// help returns what a program prints when it is asked for help.
func help(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(programs, program), append(args, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
