//go:build linux

package faults

import (
	"slices"
	"time"
)

// An outcome is what becomes of a holder that is hit.
type outcome int

const (
	either outcome = iota // it depends on the moment
	keeps                 // it has the lock all the time
	// The lock goes to the next in line, whatever the holder's locker says about that.
	loses
)

// A Fault is one way to break things.
type Fault struct {
	Name string

	need    need
	demand  demand
	anyone  bool   // it concerns every locker, not only one with a guard, a place in line and so on
	what    string // of what there is just one: two faults that hit the same do not go together
	kind    string // of the command; empty: plain
	forks   bool   // the command forks all the time: what is dead must be waited for all the time
	parent  bool   // who waits for what is dead stands still
	bare    bool   // with another fault: what the command has started is not promised to end
	exempt  bool   // docs/guarantees.md lists it as not guaranteed
	frozen  bool   // the command stands still for some time, and may do so beside another one
	row     string // in the table, where several share one; empty: the name
	like    string // what a short round has one of; empty: the row
	outcome outcome
	forced  bool // by force: the next holder may have started before this one can know
	leads   bool // the leader stands still; for too long, that is force: see stoodTooLong
	later   bool // with another fault it is force on whoever has the lock by then
	anew    bool // etcd begins anew, with new tokens and counters
	open    bool // etcd has no users, or the holder's locker could not log in
	waiters bool // it can also cost waiters their places: they need not be in turn
	byHand  bool // an operator mends it, and asks etcd for that
	settled bool // nobody can start before it ends: the next start counts from then

	load  load
	units int  // its part of loadUnits; 0: it does not load the machine
	heavy bool // it is for -faults.heavy alone

	code int    // the exit code of a holder's locker that loses
	also int    // another one that is as good
	says string // what it says then

	slower time.Duration // what the next start may take beyond the usual

	prepare func(*trial)               // before anything is started
	hit     func(*trial) (mend func()) // mend may be nil: there is nothing to mend
	lasts   func(*trial) time.Duration // until it is mended; nil: until the next holder has started
}

// loadUnits bounds how much load there is at a time. Who loads the machine does not run beside who
// does not.
const loadUnits = 6

// mostUnits is for a load beside which there can be only a small one.
const mostUnits = 4

// All returns all faults.
func All() []Fault {
	return slices.Concat(networkFaults(), processFaults(), memberFaults(), keyFaults(), clockFaults(), stubbornFaults(), crowdFaults(), exemptFaults(), userFaults(), setFaults(), sharerFaults())
}

// goesWith reports whether two faults can hit in one trial.
func (f Fault) goesWith(g Fault) bool {
	_, possible := f.need.with(g.need)
	d := f.demand.with(g.demand)
	special := func(f Fault) bool { return f.prepare != nil || f.kind != "" }
	excludes := func(f, g Fault) bool {
		return f.bare && g.kind != "" || f.forks && (g.parent || g.bare) || f.open && g.need.users
	}
	both := func(f Fault) bool { return f.parent && f.what == "the holder's processes" }
	switch {
	case both(f) && g.what == "the clock", both(g) && f.what == "the clock":
		return false // the kernel's timer, which alone can end it then, is not of that clock
	case !possible, d.root && d.ordinary, f.what == g.what, special(f) && special(g), excludes(f, g), excludes(g, f):
		return false
	}
	return f.load.busy == 0 || g.load.busy == 0
}

// with returns faults with something changed in each.
func with(faults []Fault, change func(*Fault)) []Fault {
	for i := range faults {
		change(&faults[i])
	}
	return faults
}

// during returns a time that does not depend on the trial.
func during(d time.Duration) func(*trial) time.Duration {
	return func(*trial) time.Duration { return d }
}

// ttls returns a number of TTLs.
func ttls(n float64) func(*trial) time.Duration {
	return func(t *trial) time.Duration { return time.Duration(n * float64(t.ttl)) }
}

// atRandom returns a time that is shorter or longer than what a lock survives.
func atRandom(t *trial) time.Duration {
	return time.Duration((0.1 + 1.4*t.rng.Float64()) * float64(t.ttl))
}

// renewalTime is what a renewal takes at most on a machine that is busy with other trials, with the
// pauses before it is tried again.
const renewalTime = 1500 * time.Millisecond

// leavesTime returns a time after which the lock can still be renewed before its command would be
// asked to end. Where the holder renews often, some renewals are due before.
func leavesTime(t *trial) time.Duration {
	most := t.doubt() - t.now() - renewalTime
	return time.Duration((0.6 + 0.4*t.rng.Float64()) * float64(max(most, 0)))
}
