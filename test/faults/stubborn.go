//go:build linux

package faults

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kinds are the commands that do not want to end: see package heart.
var kinds = []string{
	"ignores TERM", "has a child in a session of its own", "double forks", "forks while it is killed",
	"closes everything", "is stopped", "has a child with another name", "has a child that is traced",
	"has a child that changes its title", "has a child that outlives its main thread",
}

// hands returns the faults that hit each kind of command and each load. Each makes the holder lose
// its lock.
func hands() []Fault {
	return with([]Fault{
		{Name: "network silent", what: "the holder's network", code: 2, says: unrenewed, hit: breaks(silent, holders)},
		{Name: "etcdlocker killed", what: "the holder's processes", code: 137, hit: signals(syscall.SIGKILL, theLocker)},
		{Name: "etcdlocker stopped", what: "the holder's processes", code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker)},
		{Name: "key deleted", what: "the key", code: 2, says: keyDeleted, hit: deletesKey},
		{Name: "etcdlocker and guard stopped", what: "the holder's processes", parent: true, code: 2, says: leaseOver, hit: signals(syscall.SIGSTOP, theLocker, theGuard)},
	}, func(f *Fault) { f.outcome = loses })
}

// stubbornFaults are the hands, each with every kind of command that does not want to end.
func stubbornFaults() (all []Fault) {
	for _, kind := range kinds {
		all = append(all, with(hands(), func(f *Fault) {
			f.anyone, f.kind, f.row = true, kind, "a command that "+kind
			if strings.HasPrefix(kind, "has a child") {
				f.like = "a command that has a child"
			}
		})...)
	}
	return with(all, func(f *Fault) { f.Name += "; the command " + f.kind })
}

// A crowd is a kind of command of which the holder's alone is, and what the suite gives it.
type crowd struct {
	kind   string
	heavy  bool
	units  int
	load   load
	demand demand
}

// crowds are the commands that consist of many processes, or of busy ones: see package crowd.
var crowds = []crowd{
	{kind: "forks and exits without pause", units: 1, load: load{idle: 600}},
	{kind: "is a fork bomb", units: mostUnits, heavy: true},
	{kind: "has 200 processes", units: 1},
	{kind: "has 1,000 processes", units: mostUnits, heavy: true},
	{kind: "has 2,500 processes", units: mostUnits, heavy: true},
	{kind: "never sleeps, at a real-time priority", units: mostUnits, demand: demand{root: true}},
}

func isCrowd(kind string) bool {
	return slices.ContainsFunc(crowds, func(c crowd) bool { return c.kind == kind })
}

// realTime is the priority of the command that never sleeps, and of the etcdlocker that starts it.
const realTime = "10"

// crowdFaults are the hands with every crowd, and with processors that are busy.
func crowdFaults() (all []Fault) {
	for _, c := range crowds {
		all = append(all, with(hands()[:4], func(f *Fault) {
			f.Name, f.row = f.Name+"; the command "+c.kind, "a command that "+c.kind
			f.kind, f.load, f.units, f.heavy, f.demand, f.forks = c.kind, c.load, c.units, c.heavy, c.demand, true
			f.demand.crowd = true
			if c.demand.root {
				f.prepare = ranksHolder
			}
		})...)
	}
	for _, busy := range []struct {
		name  string
		times int
		units int
		heavy bool
	}{{"processors busy", 1, 2, false}, {"processors busy four times over", 4, 2, true}, {"processors busy 16 times over", 16, mostUnits, true}} {
		all = append(all, with(hands()[:3], func(f *Fault) {
			f.Name, f.row = f.Name+"; "+busy.name, busy.name
			f.load, f.units, f.heavy, f.demand = load{busy: busy.times}, busy.units, busy.heavy, demand{crowd: true}
		})...)
	}
	return with(all, func(f *Fault) { f.slower = loadedTime })
}

// loadedTime is what the next start may take longer on a machine that is kept busy on purpose.
const loadedTime = 2 * time.Second

// ranksHolder has the holder started at a real-time priority, on one processor: a command that
// never sleeps leaves it none.
func ranksHolder(t *trial) {
	t.holder.launched = []string{"-cpu", strconv.Itoa(runtime.NumCPU() - 1), "-fifo", realTime}
}
