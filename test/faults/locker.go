//go:build linux

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A Locker is a program that runs a command under a lock.
type Locker struct {
	Name string
	// Command returns the program to run.
	Command func(Job) *exec.Cmd

	ours  bool // it is held to what docs/guarantees.md promises
	flags bool // it has etcdlocker's options
}

// A Job is what a locker is to do.
type Job struct {
	Endpoints []string
	Key, ID   string
	TTL       time.Duration
	Options   []string // of etcdlocker's, more of them
	Command   []string
}

// etcdlocker is the locker in a file.
func etcdlocker(file string) Locker {
	return Locker{Name: "etcdlock", ours: true, flags: true, Command: func(j Job) *exec.Cmd {
		args := []string{"-v", "-e", strings.Join(j.Endpoints, ","), "-k", j.Key, "-i", j.ID, "-t", strconv.Itoa(int(j.TTL / time.Second))}
		args = append(append(args, j.Options...), "--")
		return exec.Command(file, append(args, j.Command...)...)
	}}
}

// Programs are what was built for a run of the suite.
type Programs struct {
	dir        string
	hasCrowd   bool // there was a C compiler
	Etcdlocker Locker
}

// Build builds the programs in a directory. dir is that of the main module.
func Build(module, dir string) (Programs, error) {
	p := Programs{dir: dir, Etcdlocker: etcdlocker(filepath.Join(dir, "etcdlocker"))}
	for _, build := range [][]string{
		{"-o", dir + "/", "./cmd/etcdlocker", "./test/faults/heart", "./test/faults/broken", "./test/faults/launch"},
		{"-o", p.shifted(), "-tags", "etcdlock_shifted_clock", "./cmd/etcdlocker"},
	} {
		if err := etcdtest.GoBuild(module, build...); err != nil {
			return p, err
		}
	}
	compiler, err := exec.LookPath("cc")
	if err == nil {
		out, err := exec.Command(compiler, "-O2", "-o", p.crowd(), filepath.Join(module, "test/faults/crowd/crowd.c")).CombinedOutput()
		if err != nil {
			return p, fmt.Errorf("compiling crowd.c: %w\n%s", err, out)
		}
		p.hasCrowd = true
	}
	return p, os.Chmod(dir, 0o755) // other users execute them
}

func (p Programs) heart() string  { return filepath.Join(p.dir, "heart") }
func (p Programs) crowd() string  { return filepath.Join(p.dir, "crowd") }
func (p Programs) launch() string { return filepath.Join(p.dir, "launch") }

// shifted is an etcdlocker with a clock that can be put forward.
func (p Programs) shifted() string { return filepath.Join(p.dir, "etcdlocker-shifted") }
