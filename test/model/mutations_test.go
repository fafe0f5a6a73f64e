package model

import "testing"

// mutations take one rule away each, and name the property that it is good for.
var mutations = []struct {
	name     string
	rule     rule
	breaks   property
	scenario scenario
}{
	{"K is not bound to the holder's lease", keyHasLease, nobodyStuck, scenario{start: a, lease: own, faults: may(crash)}},
	{"a place is not bound to a lease", placeHasLease, nobodyStuck, scenario{start: a, lease: own, faults: may(crash)}},
	{"the tail is not bound to a lease", tailHasLease, nobodyStuck, scenario{start: ab, lease: own, faults: may(crash)}},
	{"a place's name is used again though a write that named it may come late", newNameAfterDoubt, oneHolder,
		scenario{start: a, lease: own, turns: [ours]uint8{2}, locks: 1, faults: may(byHand, late)}},
	{"a key below K/ that is no place is waited for", placeNamesLease, nobodyStuck, scenario{start: a, lease: own, faults: may(foreigns)}},
	{"the key of a Mutex is not waited for", waitForMutex, oneHolder, scenario{start: a, lease: own, locks: 1}},
	{"K and the place are not written in one transaction", oneTransaction, nobodyStuck, scenario{start: ab, lease: own, faults: may(late)}},
	{"the holder is whose lease K is bound to", holderByRevision, oneHolder, scenario{start: abc, lease: pair, faults: may(giveUp)}},
	{"the token is the revision at which the place was created", tokenIsModRevision, growing, scenario{start: ab, lease: own, locks: 1}},

	{"acquire does not compare K", acquireComparesKey, oneHolder, scenario{start: a, lease: own, faults: may(byHand)}},
	{"acquire does not compare all of K/", acquireComparesLine, oneHolder, scenario{start: a, lease: own, locks: 1}},
	{"acquire gets the tail after it has put its own place there", getsComeFirst, nobodyStuck, scenario{start: ab, lease: own}},
	{"the first half of acquire writes though it is refused", refusedHalfWritesNothing, nobodyStuck, scenario{start: half, try: [ours]bool{true}, lease: own}},

	{"the last change of the tail names the successor", firstChangeNames, inOrder, scenario{start: abc, lease: own}},
	{"a watch of the tail is believed though it missed what came first", tailIsFollowedFromBefore, inOrder, scenario{start: abc, lease: own}},
	{"who does not write the tail has a place named as if it did", unlinkedIsAStranger, inOrder, scenario{start: abc, unlinked: second, lease: own}},
	{"the tail that names a place stays when that is deleted", tailGoesWithPlace, nobodyStuck, scenario{start: ab, lease: own}},
	{"the tail is put back to the place before, be that there or not", putBackComparesPlace, nobodyStuck,
		scenario{start: abc, lease: pair, faults: upTo(2, giveUp)}},

	{"what is waited for is read before the watch is confirmed", watchThenRead, nobodyStuck, scenario{start: ab, lease: own}},
	{"a key that was created anew counts as still there", createdAnewIsGone, nobodyStuck, scenario{start: a, lease: own, locks: 2}},
	{"the newest place is waited for, be it older or not", waitForOlder, nobodyStuck, scenario{start: abc, lease: own, locks: 1, faults: may(giveUp)}},
	{"a watch that is silent is believed", silenceIsNoSign, nobodyStuck, scenario{start: ab, lease: own, rereads: true, faults: may(silence)}},

	{"the event of a place's creation counts as the grant", grantIsAWrite, oneHolder, scenario{start: ab, lease: own}},
	{"who stood before in the tail's history counts as standing there", historyIsRead, nobodyStuck, scenario{start: abc, lease: own, faults: may(giveUp)}},

	{"a pass does not compare K with the token", passComparesKey, oneHolder, scenario{start: ab, lease: own, faults: may(byHand)}},
	{"a pass does not compare the successor's place", passComparesSuccessor, nobodyStuck, scenario{start: ab, lease: own, faults: may(giveUp)}},
	{"a pass does not look for strangers", passComparesStrangers, oneHolder, scenario{start: ab, lease: own, locks: 1}},
	{"a pass that is refused releases nothing", passFallsBack, nobodyStuck, scenario{start: ab, lease: own, faults: may(giveUp)}},
	{"a pass puts K under the lease of who passes", passedKeyHasLease, noFalseAlarm,
		scenario{start: ab, lease: own, turns: [ours]uint8{2}, faults: may(crash)}},
	{"a pass touches the place without its lease", touchKeepsLease, nobodyStuck, scenario{start: ab, lease: own, faults: may(crash)}},

	{"an event decides", claimDecides, oneHolder, scenario{start: abc, lease: own, faults: may(giveUp)}},
	{"claim does not compare the place", claimComparesPlace, noStrays, scenario{start: ab, lease: own, turns: [ours]uint8{1, 2}, faults: may(late)}},
	{"claim does not compare the place, when another is on the lease", claimComparesPlace, nobodyStuck, scenario{start: abc, lease: pair, faults: may(giveUp)}},
	{"claim does not compare K", claimComparesKey, oneHolder, scenario{start: ab, lease: own, faults: may(byHand)}},
	{"claim does not compare all of K/", claimComparesLine, oneHolder, scenario{start: ab, lease: own, locks: 1, faults: may(giveUp)}},
	{"who did not stand behind a holder claims as if it had", nextFollowsHolder, oneHolder, scenario{start: abc, lease: own, faults: may(giveUp, byHand)}},
	{"a claim behind a holder that is gone does not look for strangers", nextComparesStrangers, oneHolder, scenario{start: abc, lease: own, locks: 1}},
	{"a claim without the comparison of K/ is made without listing the line", listingTells, inOrder,
		scenario{start: abc, lease: own, locks: 1, faults: may(giveUp)}},
	{"an unknown claim counts as granted", unknownClaimIsRepeated, oneHolder, scenario{start: abc, lease: own, faults: may(giveUp, late)}},
	{"a place that was written counts as lost", lateClaimCounts, inOrder, scenario{start: abc, lease: own, faults: may(giveUp, late)}},

	{"a renewal counts whichever the term", sameTermCounts, oneHolder, scenario{start: ab, lease: own, timed: true, faults: may(elections)}},
	{"a renewal counts from its answer", countedFromSending, oneHolder, scenario{start: ab, lease: own, timed: true}},
	{"a lease runs out while its holder counts on it", leaseOutlivesWork, oneHolder, scenario{start: ab, lease: own}},
	{"who is granted the lock after validity has ended works at once", renewBeforeWork, oneHolder, scenario{start: abc, lease: own, faults: may(cutOff)}},
	{"that the place is gone is no loss", placeIsJudged, nobodyStuck, scenario{start: a, lease: own, faults: may(force)}},
	{"that K is gone is no loss", keyIsJudged, nobodyStuck, scenario{start: a, lease: own, faults: may(byHand)}},
	{"when K is gone the place is left before the work is dead", deadBeforeLeaving, oneHolder, scenario{start: ab, lease: own, faults: may(byHand)}},
	{"an answer from before the grant is judged", oldAnswersAreNotJudged, noFalseAlarm, scenario{start: ab, lease: own, faults: may(oldReads)}},

	{"release does not compare K with the token", releaseComparesToken, noFalseAlarm, scenario{start: ab, lease: own, faults: may(late)}},
	{"who is refused the release does not leave the line", refusedReleaseLeaves, nobodyStuck, scenario{start: a, lease: own, faults: may(byHand)}},
	{"a repeated release that finds nothing is a loss", absentAfterRepeated, noFalseAlarm, scenario{start: a, lease: own, faults: may(late)}},
	{"an unknown release is not repeated", unknownReleaseIsRepeated, nobodyStuck, scenario{start: a, lease: own, faults: may(late)}},
	{"the lock counts as held after an unknown release", releaseIsFinal, oneHolder, scenario{start: ab, lease: own, faults: may(late)}},
	{"who gives up does not leave", giveUpLeaves, nobodyStuck, scenario{start: ab, lease: own, faults: may(giveUp)}},
	{"who gives up deletes its place whatever was granted meanwhile", leaveLooks, nobodyStuck, scenario{start: abc, lease: pair, faults: may(giveUp)}},
	{"who is refused to leave does not give on what it was granted", refusedLeaveGivesOn, nobodyStuck, scenario{start: ab, lease: own, faults: may(giveUp)}},

	{"an unknown acquire is made again", unknownAcquireIsFenced, noStrays, scenario{start: ab, lease: own, faults: may(late)}},
	{"an unknown acquire on a shared lease is made again under the same name", unknownAcquireIsFenced, noStrays,
		scenario{start: abc, lease: pair, faults: may(late)}},
	{"a place that reads as absent will not come", absentIsNotFinal, noStrays, scenario{start: a, lease: own, faults: may(late)}},
	{"a revocation counts before it is confirmed", revokeIsConfirmed, noStrays, scenario{start: a, lease: own, faults: may(late)}},
	{"a session does not take out a place of which it has given up the name", strayIsTakenOut, nobodyStuck,
		scenario{start: abc, lease: pair, faults: may(late)}},
	{"a session takes such a place for one that waits if it is as it was created", strayComparesKey, nobodyStuck,
		scenario{start: abc, lease: pair, faults: may(late)}},
	{"a session leaves K behind if its place was deleted before its contender knew of the grant", orphanIsDeleted, nobodyStuck,
		scenario{start: abc, lease: pair, faults: may(force)}},
	{"a lease that is not found is not revoked", notFoundIsDone, nobodyStuck, scenario{start: ab, lease: own, faults: may(cutOff)}},
}

func TestMutations(t *testing.T) {
	var x exploration
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			s := m.scenario
			if r := x.explore(&s, s.checked()); r.broken != nil {
				t.Errorf("with all rules: %v", r.broken)
			}
			s.without = m.rule
			r := x.explore(&s, m.breaks)
			if r.broken == nil {
				t.Fatalf("%d states, and %q holds in all of them", r.states, propertyNames[m.breaks])
			}
			t.Logf("%d states until %v", r.states, r.broken)
		})
	}
}

// TestEveryRule: each rule has a mutation.
func TestEveryRule(t *testing.T) {
	missing := make(map[rule]bool)
	for r := everyRule + 1; r < rules; r++ {
		missing[r] = true
	}
	for _, m := range mutations {
		delete(missing, m.rule)
	}
	if len(missing) > 0 {
		t.Errorf("no mutation takes away %v", missing)
	}
}
