//go:build linux

package faults

import (
	"slices"
	"time"
)

// strike lets the faults hit, the second one some time after the first.
func (t *trial) strike() {
	t.pressure.Wait() // from now on
	for i, f := range t.spec.Faults {
		if i > 0 {
			time.Sleep(time.Duration(t.rng.Float64() * float64(t.ttl)))
		}
		if i == 0 {
			t.heldUntil = t.doubt()
		}
		undo := f.hit(t)
		now := t.now()
		if i == 0 {
			t.hitAt = now
		}
		lasts := f.lasts
		if len(t.spec.Faults) > 1 {
			lasts = atRandom // or the two would never be there at the same time
		}
		m := &mend{do: undo}
		t.mends = append(t.mends, m)
		if lasts != nil {
			m.at = now + lasts(t)
		}
		if f.leads && len(t.spec.Faults) > 1 && t.stoodTooLong(m.at-now) && !t.result.Exempt {
			t.result.Forced, t.result.Row = true, ForcedPairs
		}
	}
	for i, f := range t.spec.Faults {
		if !f.byHand {
			continue
		}
		for j, other := range t.mends {
			if j != i { // it may be why etcd does not answer
				t.mends[i].at = max(t.mends[i].at, other.at+1)
			}
		}
	}
	t.endReader()
}

// A mend is how and when a fault ends. Without an instant it is when the next holder has started.
type mend struct {
	do   func()
	at   time.Duration
	done bool
}

// mendTimed mends what has an instant, when it comes.
func (t *trial) mendTimed() {
	slices.SortFunc(t.mends, func(a, b *mend) int { return int(a.at - b.at) })
	for _, m := range t.mends {
		if m.at != 0 {
			time.Sleep(m.at - t.now())
			t.mend(m)
		}
	}
}

// mendAll mends what is left.
func (t *trial) mendAll() {
	for _, m := range t.mends {
		t.mend(m)
	}
}

func (t *trial) mend(m *mend) {
	if m.done {
		return
	}
	m.done, t.mending = true, t.now()
	if m.do != nil {
		m.do()
	}
	t.mended = t.now()
}

// outcome is what is to become of the holder.
func (t *trial) outcome() outcome {
	if len(t.spec.Faults) > 1 {
		return either
	}
	return t.spec.Faults[0].outcome
}

// nextStarted reports whether somebody else has started, and notes who was the first.
func (t *trial) nextStarted() bool {
	for _, w := range t.waiters {
		if life := t.first(w); life != nil && (t.next == nil || life.First < t.next.First) {
			t.next = life
		}
	}
	return t.next != nil
}

// observe waits for what becomes of the holder, and mends what was broken.
func (t *trial) observe() {
	t.mendTimed()
	renewals := t.holder.stderr.renewed().number
	kept := func(times int) bool { return t.holder.stderr.renewed().number >= renewals+times }
	switch {
	case t.outcome() == loses:
		t.await(t.startsWithin()+t.suite.patience, t.nextStarted)
	case !t.spec.Locker.ours:
		t.await(t.ttl, t.nextStarted) // it does not say what it does
	case t.outcome() == keeps:
		t.await(2*t.ttl+t.suite.patience, func() bool { return kept(2) || t.holder.hasEnded() })
	default:
		// As long as a renewal lasts that should not have been counted.
		end := t.now() + t.ttl
		t.await(2*t.ttl+t.suite.patience, func() bool { return t.nextStarted() || kept(1) && t.now() > end || t.holder.hasEnded() })
	}
	if runsOn := t.spec.exempt() && !t.any(func(f Fault) bool { return f.frozen }); t.next != nil && (runsOn || !t.spec.Locker.ours) {
		// How long does the one before go on?
		t.result.Endless = !t.await(longEnough, func() bool { return t.now()-t.last(t.holder) > 300*time.Millisecond })
	}
	t.mendAll()
	if t.outcome() == loses && t.spec.Locker.ours && !t.await(t.suite.patience, t.holder.hasEnded) {
		t.problem("the holder's locker did not end")
	}
}

// longEnough is for how long two commands are watched that run at once.
const longEnough = 10 * time.Second

// startsWithin is the time from the hit, or from the mending where nobody can start before, within
// which the next one in line has to start.
func (t *trial) startsWithin() time.Duration {
	within := t.ttl + 2*time.Second
	for _, f := range t.spec.Faults {
		within += f.slower
	}
	return within
}
