package model

// full is how many ticks a lease lasts from its renewal.
const full = 2

// A clock is what a contender and etcd know of a lease's life, in ticks, and the renewal that is
// under way. It is only used by scenarios with time.
type clock struct {
	client  uint8 // ticks until validity ends
	server  uint8 // ticks until etcd may free the lease
	renewal renewal
	worth   uint8 // ticks that are left of what the renewal brings: counted from when it was sent
	term    uint8 // of the leader that acknowledged it
}

// A renewal is how far a renewal is.
type renewal uint8

const (
	none renewal = iota
	sent
	acknowledged // the linearizable read is under way
)

func newClock(s *scenario) clock {
	if !s.timed {
		return clock{}
	}
	return clock{client: full, server: full}
}

// idle is the clock without a renewal.
func (c clock) idle() clock { return clock{client: c.client, server: c.server} }

// tick: time passes. Work is dead when its validity ends.
func (w *world) tick() bool {
	if !w.timed {
		return false
	}
	passed := false
	for x := range w.who {
		c := &w.who[x].clock
		passed = passed || c.client+c.server+c.worth > 0
		for _, left := range []*uint8{&c.client, &c.server, &c.worth} {
			*left -= min(*left, 1)
		}
		if p := w.who[x].phase; c.client == 0 && !w.is(x, stale) && (p.acquires() || p.holds()) {
			w.validityEnds(x)
		}
	}
	w.aside = true
	return w.say(0, "time passes") && passed
}

// sendRenewal: the renewer sends a renewal.
func (w *world) sendRenewal(x int) bool {
	p := w.who[x].phase
	if c := &w.who[x].clock; !w.timed || c.renewal != none || !p.waits() && !p.works() {
		return false
	}
	w.who[x].clock.renewal, w.who[x].clock.worth = sent, full
	return w.say(x, "@ sends a renewal")
}

// acknowledge: the leader renews the lease.
func (w *world) acknowledge(x int) bool {
	c := &w.who[x].clock
	if c.renewal != sent {
		return false
	}
	if w.is(x, gone) {
		c.renewal, c.worth = none, 0
		return w.say(x, "etcd does not find @'s lease")
	}
	c.server, c.renewal, c.term = full, acknowledged, w.term
	return w.say(x, "etcd renews @'s lease; @ reads K and its place")
}

// acknowledgeInVain: a leader that is none any more acknowledges the renewal, and the new one never
// hears of it.
func (w *world) acknowledgeInVain(x int) bool {
	c := &w.who[x].clock
	if c.renewal != sent || w.term == 0 {
		return false
	}
	w.aside = true
	c.renewal, c.term = acknowledged, w.term-1
	return w.say(x, "a leader of old acknowledges @'s renewal; @ reads K and its place")
}

// countRenewal: the linearizable read after the renewal is answered.
func (w *world) countRenewal(x int) bool {
	c := &w.who[x].clock
	if c.renewal != acknowledged {
		return false
	}
	worth := c.worth
	if w.lacks(countedFromSending) {
		worth = full
	}
	if c.term != w.term && !w.lacks(sameTermCounts) {
		w.say(x, "@'s read shows another term: the renewal does not count")
	} else {
		w.say(x, "@'s read shows the renewal's term: it counts")
		if c.client = max(c.client, worth); worth > 0 {
			w.clear(x, stale)
		}
	}
	*c = c.idle()
	return true
}

// elect: another leader is elected, which lets all leases live on for their full time.
func (w *world) elect() bool {
	if !w.strike(elections) {
		return false
	}
	w.term++
	for x := range w.who {
		if c := &w.who[x].clock; c.server > 0 {
			c.server = full
		}
	}
	return w.say(0, "another leader is elected")
}
