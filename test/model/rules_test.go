package model

// A rule is one of docs/protocol.md's that a scenario can do without, to see what it is good for.
type rule uint8

const (
	everyRule rule = iota

	keyHasLease
	placeHasLease
	newNameAfterDoubt
	placeNamesLease
	waitForMutex
	oneTransaction
	holderByRevision
	tokenIsModRevision

	acquireComparesKey
	acquireComparesLine
	getsComeFirst
	refusedHalfWritesNothing

	watchThenRead
	createdAnewIsGone
	waitForOlder
	silenceIsNoSign

	claimDecides
	claimComparesPlace
	claimComparesKey
	claimComparesLine
	listingTells
	unknownClaimIsRepeated
	repeatedClaimLooks
	lateClaimCounts

	sameTermCounts
	countedFromSending
	leaseOutlivesWork
	renewBeforeWork
	placeIsJudged
	keyIsJudged
	deadBeforeLeaving
	oldAnswersAreNotJudged

	releaseComparesToken
	refusedReleaseLeaves
	absentAfterRepeated
	unknownReleaseIsRepeated
	releaseIsFinal
	giveUpRevokes
	leaveLooks

	unknownAcquireIsFenced
	absentIsNotFinal
	revokeIsConfirmed
	notFoundIsDone

	rules
)

func (s *scenario) lacks(r rule) bool { return s.without == r }
