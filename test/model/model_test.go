// Package model explores docs/protocol.md as a model: every order in which a few contenders, their
// requests, etcd, faults and an operator can come one after the other, breadth first, so that what
// goes wrong is shown by the shortest way to it.
//
// # What is modelled
//
// Etcd is K, the keys below it, the tail, their revisions and the leases. Up to three contenders of
// our kind go through acquire (or its first half, or TryLock), watch, read, look back in the tail's
// history, claim, list, pass or release, leave, revoke, as internal/protocol does; a Mutex of
// etcd's concurrency package locks and unlocks. One of ours may not write the tail. Two may share a
// lease, as in a session: see below.
//
// Whoever stands in line learns from the first change of the tail after its own place who its
// successor is, and keeps to that, also if the successor has left. When it releases it may know
// that, or not yet, or not any more. The history of the tail names the newest older place that
// swapped the tail, or nothing: where it is compacted, and where the tail was deleted in between.
// Who saw that it stood behind the holder claims without the comparison of the line, so what the
// tail and its history say is more than a hint then: that nobody is overtaken is judged when etcd
// applies a claim, also a late one.
//
// Faults: a sender gives up on a write, which is applied at any later time or never (an answer that
// is lost is the same as a write that is applied at once and late); a process is killed; who waits
// gives up; a lease is not renewed in time and runs out; watches fall silent; a read is answered
// late; a deposed leader acknowledges renewals. The operator deletes, overwrites or puts K, deletes
// a place, or revokes a lease. How many of them there may be is bounded in each exploration.
//
// # What is checked
//
//   - One holder: never two at work, the Mutex included, nobody takes a K that is there, and nobody
//     passes on a K that it does not have. Who lost its place or its lease to the operator's force
//     does not count until it is told: for an instant two may be at work.
//   - Nobody stuck: from each state the steps that can be relied on, which are no faults and no
//     late requests, can lead to where all have had their turn or are gone, and no key is left, not
//     the tail either. The number of states is finite, so once faults cease every run that is fair
//     gets there. The end of its work cannot be relied on of a holder that has lost the lock: it
//     has to be told. A watch has to suffice where watches work: waiters read again after renewals
//     only in the exploration of silent watches.
//   - In order: nobody is granted the lock while an older place waits, and nobody who stays loses
//     its place of itself. A pass and a claim are judged when etcd applies them: then no older key
//     below K/ may be there, waiting or not. That is so for those who do not write the tail, too.
//   - The tail put back, when who it named leaves, is never the first change that somebody sees.
//   - Tokens grow from holder to holder, the Mutex's (the revision of the answer that showed that
//     it holds) included.
//   - No strays: no late write puts a key after its sender has begun anew. (A session reckons with
//     a place of which it has given up the name.)
//   - No false alarm: nobody is told of a loss without one.
//
// # Sessions
//
// Two contenders on one lease cannot revoke it for one of them. Their session gives up the name of
// a place of which it is not known whether it is there, and takes that out of the line whenever it
// appears: as a leave, or as a release if K has its ModRevision. There is one such place at a time
// here. The lock may be passed to it in between.
//
// A place that the operator deletes before its contender knows that the lock was granted to it
// leaves K under the lease, and nobody would ever give that back. So who finds its place gone, in
// whichever way, also when it leaves, reads K: if it is under the lease, no place has its
// ModRevision, and nobody on the lease holds the lock with that token, it is deleted (if its
// ModRevision is still that), and so is the tail if it names the place. The session does the same
// for a place of which it has given up the name. A contender that is told of the grant by the
// watch, and only then that its place is gone, knows the token, and releases.
//
// # What is assumed
//
//   - Work ends with its process, and before its lease can run out: validity is counted short, and
//     the guard kills. (Only "renewals and two leaders" has clocks. The other explorations let a
//     lease run out when its validity has ended.)
//   - Revisions grow: there is one history. Reads are linearizable. A revoked lease stays so.
//   - An answer arrives when its request is applied. What could happen between the two can as well
//     happen before the next request is applied, but for reads that overlap a grant, and for
//     requests that their sender has given up: these are modelled. A watch tells later.
//   - The next request follows an answer at once. When it is applied is open, so this leaves
//     nothing out.
//
// # What is not modelled
//
//   - Force on the Mutex's key, the end of its lease while it works, and late writes of its: it is
//     never told.
//   - Grants (one that is unknown leaves a lease without keys), permissions, the restoring of a
//     backup, margins and graces.
//   - A place or a tail that the operator writes, or a tail that it deletes.
//   - The lease of its own that goes after its contender has left: it has no keys any more.
//   - Late writes of the session when it takes out a place: they name revisions that do not come
//     again.
package model

import (
	"flag"
	"testing"
	"time"
)

var more = flag.Bool("model.more", false, "explore with one fault more: takes minutes, and gigabytes")

var (
	a    = [ours]phase{joining}
	ab   = [ours]phase{joining, joining}
	abc  = [ours]phase{joining, joining, joining}
	half = [ours]phase{trying, joining}

	second = [ours]bool{1: true}
	third  = [ours]bool{2: true}
)

func may(fs ...fault) (budget [faults]uint8) {
	for _, f := range fs {
		budget[f]++
		if f < counted {
			budget[anyFault]++
		}
	}
	return budget
}

// upTo is a budget of so many faults together, of the kinds that are named, each as often as it is
// named.
func upTo(n uint8, fs ...fault) [faults]uint8 {
	budget := may(fs...)
	for f := range counted {
		if budget[f] > 0 {
			budget[f] = n
		}
	}
	budget[anyFault] = n
	return budget
}

// mixed is the kinds of faults that are explored with each other.
var mixed = []fault{late, late, crash, giveUp, cutOff, byHand, force}

var explorations = []struct {
	name     string
	scenario scenario
}{
	{"three, of which two on one lease, and a Mutex",
		scenario{start: [ours]phase{joining, joining, trying}, lease: pair, locks: 1, faults: upTo(1, mixed...)}},
	{"three, of which the second may not write the tail, and a Mutex",
		scenario{start: abc, unlinked: second, lease: own, locks: 1, faults: upTo(1, mixed...)}},
	{"two on one lease, and one that may not write the tail",
		scenario{start: abc, unlinked: third, lease: pair, faults: upTo(1, mixed...)}},
	{"three, of which two on one lease", scenario{start: abc, lease: pair, faults: upTo(2, mixed...)}},
	{"three with leases of their own", scenario{start: abc, lease: own, faults: upTo(2, mixed...)}},
	{"two on one lease, and a Mutex", scenario{start: ab, lease: pair, locks: 1, faults: upTo(2, mixed...)}},
	{"one that locks twice, another, and a Mutex",
		scenario{start: ab, lease: own, turns: [ours]uint8{2, 1}, locks: 1, faults: upTo(2, mixed...)}},
	{"two with leases of their own", scenario{start: ab, lease: own, faults: upTo(3, append(mixed, byHand)...)}},
	{"two on one lease", scenario{start: ab, lease: pair, faults: upTo(3, append(mixed, byHand)...)}},
	{"TryLock, another, and a Mutex", scenario{start: half, try: [ours]bool{true}, lease: own, locks: 1, faults: upTo(2, mixed...)}},
	{"a key that is no place", scenario{start: abc, lease: own, faults: upTo(1, append(mixed, foreigns)...)}},
	{"watches that fall silent", scenario{start: abc, lease: own, rereads: true, faults: upTo(2, silence, silence, giveUp, byHand)}},
	{"reads from before the grant", scenario{start: ab, lease: own, locks: 1, faults: upTo(2, append(mixed, oldReads)...)}},
	{"renewals and two leaders", scenario{start: ab, lease: own, timed: true, faults: may(elections)}},
}

func TestExplorations(t *testing.T) {
	var x exploration
	for _, e := range explorations {
		t.Run(e.name, func(t *testing.T) {
			s := e.scenario
			switch {
			case *more:
				s.faults[anyFault]++
			case testing.Short() && s.faults[anyFault] > 0:
				s.faults[anyFault]--
			}
			began := time.Now()
			r := x.explore(&s, s.checked())
			t.Logf("%d states, %d steps deep, %v", r.states, r.depth, time.Since(began).Round(time.Millisecond))
			if r.broken != nil {
				t.Error(r.broken)
			}
		})
	}
}
