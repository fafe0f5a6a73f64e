//go:build linux

package faults

import "slices"

// setFaults hit lockers that hold two locks. A waiter stands in line for the first of them. What
// hits the key of a holder's lock, or its place, hits that of the second.
func setFaults() []Fault {
	return variant{
		name:     "several keys",
		kept:     []string{"network silent, not for long", "connections reset", "leader killed and restarted", "a waiter's place deleted"},
		lost:     []string{"network silent", "etcdlocker killed", "etcdlocker stopped", "command killed", "key deleted", "key overwritten", "broken"},
		forced:   []string{"place deleted", "lease revoked"},
		isLost:   ", the locks lost",
		isForced: ", the locks taken by force",
		after: func(t *trial) {
			var err error
			t.second, err = watch(t.ctx, t.client, t.key+"-2") // the key is greater
			t.require(err)
			for _, p := range t.players() {
				p.options = append(p.options, "-k", t.second.key)
			}
		},
	}.faults()
}

// lines returns those for all locks of the trial.
func (t *trial) lines() []*line {
	return slices.DeleteFunc([]*line{t.line, t.second}, func(l *line) bool { return l == nil })
}

// struck is the line for the lock of a holder's that a fault hits.
func (t *trial) struck() *line { return t.lines()[len(t.lines())-1] }

// judgeSets: whose command ran has held each of the locks.
func (t *trial) judgeSets() {
	if t.second == nil {
		return
	}
	_, holdings, err := t.second.seen()
	t.require(err)
	for _, p := range t.players() {
		if t.first(p) != nil && !slices.ContainsFunc(holdings, func(h holding) bool { return h.id == p.name }) {
			t.problem("locks: the command of %s ran without the second one", p.name)
		}
	}
}
