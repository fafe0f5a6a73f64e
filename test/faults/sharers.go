//go:build linux

package faults

import (
	"os"
	"path/filepath"
	"slices"
	"time"
)

// sharerFaults hit a holder that shares the lock with another reader. The waiters want it alone.
func sharerFaults() []Fault {
	all := slices.Concat(networkFaults(), processFaults(), memberFaults(), keyFaults())
	kept := named(slices.Clone(all), "network silent, not for long", "etcdlocker stopped, not for long", "connections reset", "leader killed and restarted", "a waiter's place deleted")
	lost := named(slices.Clone(all), "network silent", "etcdlocker killed", "etcdlocker stopped", "etcdlocker and guard killed", "command killed")
	forced := named(all, "place deleted", "lease revoked")
	sharers := slices.Concat(
		with(kept, func(f *Fault) { f.row = "shared" }),
		with(lost, func(f *Fault) { f.row = "shared, one loses it" }),
		with(forced, func(f *Fault) { f.row = "shared, taken from one by force" }),
	)
	return with(sharers, func(f *Fault) {
		prepare := f.prepare
		f.Name, f.anyone = f.Name+"; shared", false
		f.prepare = func(t *trial) {
			t.reader = t.other(players[3])
			if prepare != nil {
				prepare(t)
			}
			for _, p := range []*player{t.holder, t.reader} {
				p.options = append(p.options, "-s")
			}
		}
	})
}

// inLine returns the players in the order in which they come. The other reader comes before the
// holder or after it.
func (t *trial) inLine() []*player {
	all := t.players()
	if t.reader != nil && t.rng.IntN(2) == 0 {
		slices.Reverse(all[:2])
	}
	return all
}

// endReader tells the other reader to end, some time after the hit: before the holder's lock can
// run out, or after that.
func (t *trial) endReader() *mend {
	after := time.Duration((0.2 + 1.2*t.rng.Float64()) * float64(t.ttl))
	return &mend{at: t.hitAt + after, do: func() {
		t.told = t.now()
		t.require(os.WriteFile(filepath.Join(t.dir, "finish."+t.reader.name), nil, 0o600))
	}}
}

// share reports whether two commands may run at once.
func (t *trial) share(a, b string) bool {
	readers := func(a, b string) bool { return a == t.holder.name && b == t.reader.name }
	return t.reader != nil && (readers(a, b) || readers(b, a))
}

// afterReader returns from when the next start counts, and within which time it has to come, where
// the other reader ends later than that of the fault: the TTL has begun with the fault.
func (t *trial) afterReader(from, within time.Duration) (_, _ time.Duration) {
	if t.told <= from {
		return from, within
	}
	return t.told, within - min(t.told-from, t.ttl)
}

// judgeReader: nobody ran beside the reader that was not hit, not even where the lock of the other
// one was taken by force.
func (t *trial) judgeReader() {
	if _, alone := t.alone(); !alone || t.reader == nil {
		return
	}
	if longest := t.longest(func(a, b string) bool { return a == t.reader.name && b != a && !t.share(a, b) }); longest > 0 {
		t.problem("overlap: a command ran for %v beside the reader that was not hit", longest)
	}
}
