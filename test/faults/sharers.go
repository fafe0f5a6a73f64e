//go:build linux

package faults

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/faults/beat"
)

// slots is how many slots a lock has that is a semaphore.
const slots = 2

// sharerFaults hit a holder beside which another one runs, the reader. In some of them these two
// share the lock, and the waiters want it alone; in the others it has two slots, and all want one.
func sharerFaults() []Fault {
	return slices.Concat(
		beside("shared", nil, func(t *trial) {
			for _, p := range []*player{t.holder, t.reader} {
				p.options = append(p.options, "-s")
			}
		}),
		beside("one of two slots", slotFaults(), func(t *trial) {
			t.slots = slots
			for _, p := range t.players() {
				p.options = append(p.options, "--slots", strconv.Itoa(slots))
			}
		}),
	)
}

// beside returns what hits a holder beside which another one runs, with more that is by force.
func beside(how string, more []Fault, options func(*trial)) []Fault {
	return variant{
		name:     how,
		kept:     []string{"network silent, not for long", "etcdlocker stopped, not for long", "connections reset", "leader killed and restarted", "a waiter's place deleted"},
		lost:     []string{"network silent", "etcdlocker killed", "etcdlocker stopped", "etcdlocker and guard killed", "command killed", "broken"},
		forced:   []string{"place deleted", "lease revoked"},
		more:     more,
		isLost:   ", one loses it",
		isForced: ", taken from one by force",
		before:   func(t *trial) { t.reader = t.other(players[3]) },
		after:    options,
	}.faults()
}

// slotFaults hit what there is of slots alone.
func slotFaults() []Fault {
	return []Fault{{Name: "slot deleted", what: "the key", outcome: loses, forced: true, code: 2, says: "its slot was deleted", hit: func(t *trial) func() {
		slot, err := strconv.Atoi(t.slotOf(t.holder.name))
		t.require(err)
		t.operate(func(ctx context.Context) error { return t.remove(ctx, wire.Slot(t.key, t.slots, slot)) })
		return nil
	}}}
}

// slotOf returns which slot a player's command has found that it has, "" if it has found none.
func (t *trial) slotOf(name string) string { return t.found("slot", name) }

// tokenOf returns the token that a player's command has found, 0 if it has found none.
func (t *trial) tokenOf(name string) (token int64) {
	if found := t.found("token", name); found != "" {
		var err error
		token, err = strconv.ParseInt(found, 10, 64)
		t.require(err)
	}
	return token
}

// found returns what a player's command has found in its environment.
func (t *trial) found(what, name string) string {
	found, err := os.ReadFile(filepath.Join(t.dir, what+"."+name))
	if !errors.Is(err, os.ErrNotExist) {
		t.require(err)
	}
	return string(found)
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
// run out, or after that. The one that has the other slot stays: else that would be the next one's.
func (t *trial) endReader() {
	if t.reader == nil || t.slots > 0 {
		return
	}
	after := time.Duration((0.2 + 1.2*t.rng.Float64()) * float64(t.ttl))
	t.mends = append(t.mends, &mend{at: t.hitAt + after, do: func() {
		t.told = t.now()
		t.require(os.WriteFile(filepath.Join(t.dir, "finish."+t.reader.name), nil, 0o600))
	}})
}

// share reports whether two commands may run at once.
func (t *trial) share(a, b string) bool {
	if t.slots > 0 {
		one, other := t.slotOf(a), t.slotOf(b)
		return one != "" && other != "" && one != other
	}
	readers := func(a, b string) bool { return a == t.holder.name && b == t.reader.name }
	return t.reader != nil && (readers(a, b) || readers(b, a))
}

// together reports whether two commands that may run at once did so: who has got its lock first may
// be the second one to start.
func (t *trial) together(a, b *beat.Life) bool {
	return t.share(a.Name, b.Name) && a.First <= b.Last && b.First <= a.Last
}

// crowded returns for how long more commands than there are slots have run at the same time.
func (t *trial) crowded() (longest time.Duration) {
	if t.slots == 0 {
		return 0
	}
	lives := t.lives(nil)
	for _, a := range lives {
		for _, b := range lives {
			for _, c := range lives {
				if a.Name < b.Name && b.Name < c.Name {
					longest = max(longest, min(a.Last, b.Last, c.Last)-max(a.First, b.First, c.First))
				}
			}
		}
	}
	return longest
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

// judgeTokens: who wants the lock alone has a greater token than both who have shared it before,
// and in one slot tokens grow.
func (t *trial) judgeTokens() {
	if t.reader == nil || t.any(func(f Fault) bool { return f.anew }) {
		return
	}
	for _, a := range t.players() {
		for _, b := range t.players() {
			if one, other := t.tokenOf(a.name), t.tokenOf(b.name); one != 0 && other != 0 && t.before(a, b) && one >= other {
				t.problem("history: %s has the token %d, and %s has %d after it", a.name, one, b.name, other)
			}
		}
	}
}

// before reports whether one player had the lock, or a slot, before another one that it keeps out.
func (t *trial) before(a, b *player) bool {
	if t.slots > 0 {
		one, other := t.first(a), t.first(b)
		return t.slotOf(a.name) == t.slotOf(b.name) && one != nil && other != nil && one.First < other.First
	}
	shares := func(p *player) bool { return p == t.holder || p == t.reader }
	return shares(a) && !shares(b)
}
