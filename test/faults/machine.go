//go:build linux

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A demand is what a fault demands of the machine that it runs on, and of the user whose lockers it
// hits.
type demand struct {
	root     bool // the lockers are root's
	ordinary bool // they are an ordinary user's
	groups   bool // the suite can make control groups
	crowd    bool // there is a C compiler, for package crowd
}

func (d demand) with(e demand) demand {
	return demand{d.root || e.root, d.ordinary || e.ordinary, d.groups || e.groups, d.crowd || e.crowd}
}

// The users whose lockers a trial runs.
const (
	Root     = "root"
	Ordinary = "ordinary"
)

// ordinaryID is the user and the group of lockers that root's suite runs as an ordinary user's. No
// user has to be called so.
const ordinaryID = 54321

// isRoot reports whether the suite can be any user.
func isRoot() bool { return os.Geteuid() == 0 }

// demand is what all faults of a trial demand.
func (s Spec) demand() (d demand) {
	for _, f := range s.Faults {
		d = d.with(f.demand)
	}
	return d
}

// user returns whose lockers the trial runs: the faults, the options or the seed say so.
func (s Spec) user(wanted string) string {
	switch d := s.demand(); {
	case d.root:
		return Root
	case d.ordinary || !isRoot():
		return Ordinary
	case wanted != "":
		return wanted
	}
	return []string{Root, Ordinary}[s.Seed/2%2] // the lowest bit is that of the world
}

// excluded says why a trial is not wanted, empty if it is.
func (s *suite) excluded(spec Spec) string {
	switch d := spec.demand(); {
	case d.root && d.ordinary:
		return "a pair that would need two users"
	case d.root && s.options.User == Ordinary, d.ordinary && s.options.User == Root:
		return "the other user's, by -faults.user"
	}
	return ""
}

// lacking says what a trial would need that this machine lacks, empty if it can run.
func (s *suite) lacking(spec Spec) string {
	switch d := spec.demand(); {
	case (d.root || s.options.User == Root) && !isRoot():
		return "root"
	case d.groups && s.groups == "":
		return "control groups of the second version, and the right to make some"
	case d.crowd && !s.programs.hasCrowd:
		return "a C compiler"
	}
	return ""
}

// checkDemand skips or fails a test whose trial cannot run.
func (s *suite) checkDemand(t testing.TB, spec Spec) {
	t.Helper()
	if why := s.excluded(spec); why != "" {
		etcdtest.Skip(t, why)
	}
	if what := s.lacking(spec); what != "" {
		etcdtest.Missing(t, what)
	}
}

// above is by how much the suite and its etcd are above the ordinary priority while a trial loads
// the machine: they stand for other machines, which do not get busy when that of the lockers does.
// Only root can have that; see launch for the way back.
const above = -20

// raise gives that to this process, but for its pace, and to the etcd there is, and so to what they
// start.
func (s *suite) raise() {
	if !isRoot() {
		return
	}
	for range 2 { // a thread that is started meanwhile has the priority of the one that starts it
		for _, pid := range append(s.worlds.processes(), os.Getpid()) {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is right
			for _, task := range tasks {
				if tid, err := strconv.Atoi(filepath.Base(task)); err == nil && tid != int(s.pace.thread.Load()) {
					unix.Setpriority(unix.PRIO_PROCESS, tid, above) // it may have ended
				}
			}
		}
	}
}
