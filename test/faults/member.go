//go:build linux

package faults

import (
	"syscall"
	"time"
)

// elections is what an election takes at most with etcd's own timing, with a second try. Whoever is
// elected gives every lease its whole time again, and an election on top.
const elections = 4 * time.Second

func memberFaults() []Fault {
	three, one := need{size: 3, alone: true}, need{size: 1, alone: true}
	return with([]Fault{
		{Name: "leader killed and restarted", need: three, outcome: keeps, prepare: renewsOften, lasts: during(4 * time.Second), hit: func(t *trial) func() { return t.kill(t.world.leader()) }},
		{waiters: true, leads: true, Name: "leader stopped", need: three, outcome: keeps, prepare: renewsOften, lasts: during(5 * time.Second), hit: func(t *trial) func() { return t.stop(t.world.leader()) }},
		{waiters: true, leads: true, Name: "leader stopped while the holder renews through it", need: three, prepare: renewsThroughLeader, lasts: fooled, hit: func(t *trial) func() { return t.stop(t.through) }},
		{Name: "leader stopped for longer than the TTL", forced: true, waiters: true, need: three, lasts: ttls(1.4), hit: func(t *trial) func() { return t.stop(t.world.leader()) }},
		{Name: "leader and etcdlocker killed", need: three, outcome: loses, code: 137, slower: elections + time.Second, hit: func(t *trial) func() {
			restart := t.kill(t.world.leader())
			forget := signals(syscall.SIGKILL, theLocker)(t)
			return func() {
				forget()
				restart()
			}
		}},
		{Name: "leader killed, for good", need: three, slower: elections, hit: func(t *trial) func() { return t.kill(t.world.leader()) }, lasts: ttls(1.5)},
		{Name: "another member stopped for some elections", need: three, outcome: keeps, prepare: hasTime, lasts: during(elections), hit: func(t *trial) func() { return t.stop((t.world.leader() + 1) % 3) }},
		{waiters: true, Name: "majority lost, not for long", need: three, outcome: keeps, prepare: renewsOften, lasts: during(time.Second), hit: losesMajority},
		{waiters: true, Name: "majority lost, for some time", need: three, lasts: atRandom, hit: losesMajority},
		{waiters: true, Name: "majority lost", need: three, outcome: loses, code: 2, says: unrenewed, settled: true, slower: elections, lasts: ttls(1.2), hit: losesMajority},
		{Name: "etcd killed and restarted", need: one, hit: func(t *trial) func() { return t.kill(0) }, lasts: during(0)},
		{Name: "etcd killed, for some time", need: one, hit: func(t *trial) func() { return t.kill(0) }, lasts: atRandom},
		{Name: "etcd wiped", need: one, outcome: loses, forced: true, anew: true, open: true, code: 2, hit: func(t *trial) func() {
			t.world.members[0].Wipe()
			return nil
		}},
	}, func(f *Fault) { f.what, f.anyone = "the members", true })
}

// stop stops a member: the kernel goes on for it, and its connections stay.
func (t *trial) stop(members ...int) (mend func()) {
	for _, m := range members {
		t.world.members[m].Stop()
	}
	return func() {
		for _, m := range members {
			t.world.members[m].Cont()
		}
	}
}

func (t *trial) kill(members ...int) (mend func()) {
	for _, m := range members {
		t.world.members[m].Kill()
	}
	return func() {
		for _, m := range members {
			t.world.members[m].Restart()
		}
	}
}

// losesMajority takes two members away, the leader among them or not, killed or stopped.
func losesMajority(t *trial) func() {
	first := t.rng.IntN(3)
	lost := []int{first, (first + 1) % 3}
	if t.rng.IntN(2) == 0 {
		return t.kill(lost...)
	}
	return t.stop(lost...)
}

// stoodTooLong reports whether a leader that stood still for so long may revoke leases when it goes
// on: by its clock they have run out that were renewed meanwhile, though not through it.
func (t *trial) stoodTooLong(d time.Duration) bool { return d > t.ttl-2*renewalTime }

// hasTime gives a holder, on a machine that is busy, time for a renewal that is more than two
// answers: for logins, which the others make as well, or for tries that meet a silent member.
func hasTime(t *trial) { t.ttl = 10 * time.Second }

// renewsOften lets a holder survive an election: what it has left when its leader goes is longer.
func renewsOften(t *trial) {
	t.ttl = 8 * time.Second
	for _, p := range t.players() {
		p.options = []string{"-r", "1"}
	}
}

// renewsThroughLeader is a holder that knows the leader alone, and renews when that has been
// stopped. Once the leader goes on, and before it hears of the other one, it confirms a renewal
// that nobody else knows of. The refresh interval is so long that the next renewal is too late
// then: the first one must not be counted.
func renewsThroughLeader(t *trial) {
	t.ttl = 10 * time.Second
	t.through = t.world.leader()
	t.holder.knows = []int{t.through}
	t.grace = 500 * time.Millisecond
	t.holder.options = []string{"-r", "8", "--grace", t.grace.String()}
}

// fooled stops the leader from before the renewal until just before the holder gives up.
func fooled(t *trial) time.Duration {
	return t.doubt() - t.now() - 300*time.Millisecond - time.Duration(t.rng.Int64N(int64(700*time.Millisecond)))
}
