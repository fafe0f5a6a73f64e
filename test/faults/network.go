//go:build linux

package faults

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A fate is what can become of a way to a member.
type fate struct {
	name string
	set  func(*etcdtest.Link)
}

var (
	silent   = fate{"silent", (*etcdtest.Link).Silence}
	refused  = fate{"refused", (*etcdtest.Link).Refuse}
	upLost   = fate{"silent towards etcd", (*etcdtest.Link).SilenceUp}
	downLost = fate{"silent from etcd", (*etcdtest.Link).SilenceDown}
	slow     = fate{"slow (100 ms each way)", func(l *etcdtest.Link) { l.Delay(100 * time.Millisecond) }}
)

// unrenewed is what a holder says that lost its lock for want of an answer.
const unrenewed = "could not be renewed in time"

// placeLost is what a waiter says whose place in line is gone.
const placeLost = "place in line lost"

func networkFaults() []Fault {
	var all []Fault
	for _, f := range []fate{silent, refused, upLost, downLost} {
		all = append(all,
			Fault{Name: "network " + f.name, like: "network lost", outcome: loses, code: 2, says: unrenewed, hit: breaks(f, holders)},
			Fault{Name: "network " + f.name + ", not for long", like: "network lost, not for long", outcome: keeps, prepare: renewsOften, hit: breaks(f, holders), lasts: leavesTime},
			Fault{Name: "network " + f.name + ", for some time", like: "network lost, for some time", hit: breaks(f, holders), lasts: atRandom},
		)
	}
	all = append(all,
		Fault{Name: "network slow (100 ms each way)", outcome: keeps, hit: breaks(slow, holders), lasts: ttls(1.3)},
		Fault{Name: "network slower than the lease", outcome: loses, code: 2, says: unrenewed, hit: func(t *trial) func() {
			return breaks(fate{set: func(l *etcdtest.Link) { l.Delay(t.ttl * 3 / 5) }}, holders)(t)
		}},
		Fault{Name: "connections reset", outcome: keeps, hit: breaks(fate{set: (*etcdtest.Link).Cut}, holders)},
	)
	all = with(all, func(f *Fault) { f.what, f.anyone = "the holder's network", true })
	var waiters []Fault
	for _, f := range []fate{silent, refused, upLost, downLost, slow} {
		waiters = append(waiters, Fault{Name: "a waiter's network " + f.name, like: "a waiter's network", what: "a waiter", waiters: true, outcome: keeps, hit: breaks(f, firstWaiters), lasts: ttls(1.6)})
	}
	var members []Fault
	for _, f := range []fate{silent, refused, upLost, downLost, slow} {
		members = append(members, Fault{Name: "one of three members " + f.name, like: "one of three members", what: "the holder's network", anyone: true, need: need{size: 3}, outcome: keeps, prepare: hasTime, lasts: ttls(1.6),
			hit: func(t *trial) func() {
				member := t.rng.IntN(3)
				return breaks(f, func(t *trial) (links []*etcdtest.Link) {
					for _, p := range t.players() {
						links = append(links, p.links[member])
					}
					return links
				})(t)
			}})
	}
	return append(append(all, waiters...), members...)
}

// breaks breaks some links.
func breaks(f fate, which func(*trial) []*etcdtest.Link) func(*trial) func() {
	return func(t *trial) func() {
		links := which(t)
		for _, l := range links {
			f.set(l)
		}
		return func() {
			for _, l := range links {
				l.Restore()
			}
		}
	}
}

func holders(t *trial) []*etcdtest.Link { return t.holder.links }

func firstWaiters(t *trial) []*etcdtest.Link { return t.waiters[0].links }
