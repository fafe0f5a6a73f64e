package model

// A rule is one of docs/protocol.md's that a scenario can do without, to see what it is good for.
type rule uint8

const (
	everyRule rule = iota

	keyHasLease
	placeHasLease
	tailHasLease
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

	firstChangeNames
	tailIsFollowedFromBefore
	unlinkedIsAStranger
	tailGoesWithPlace
	putBackComparesPlace

	watchThenRead
	createdAnewIsGone
	waitForOlder
	silenceIsNoSign
	grantIsAWrite
	historyIsRead

	passComparesKey
	passComparesSuccessor
	passComparesStrangers
	passFallsBack
	passedKeyHasLease
	touchKeepsLease

	claimDecides
	claimComparesPlace
	claimComparesKey
	claimComparesLine
	nextFollowsHolder
	nextComparesStrangers
	listingTells
	unknownClaimIsRepeated
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
	giveUpLeaves
	leaveLooks
	refusedLeaveGivesOn

	unknownAcquireIsFenced
	absentIsNotFinal
	revokeIsConfirmed
	notFoundIsDone

	strayIsTakenOut
	strayComparesKey
	orphanIsDeleted

	rules
)

func (s *scenario) lacks(r rule) bool { return s.without == r }
