// Package model runs the machines of internal/protocol, with the transactions of internal/wire
// and what internal/translate makes of answers, against a small etcd: in every order, and with
// every fault, that it is told to. A [World] is the state; [World.Moves] lists what can happen
// next. A [Run] chooses among the moves at random, an [Exploration] visits every state of a
// small cast, breadth first, so that what goes wrong is shown by the shortest way to it.
//
// # What is modelled
//
// Etcd is package smalletcd, which executes the requests themselves. Tests hold it against a real
// one. Contenders have a lease of their own or share one in a session; they may write the tail or
// not; they wait or only try; they want the lock alone, share it, or want one of its slots, of
// which there are one to three. A Mutex of etcd's concurrency package locks and unlocks. The driver
// is modelled move by move: it sends a request, repeats it, gives it up; creates watches and tells
// of events; reads the state after renewals; revokes a lease before it begins anew.
//
// Faults: an answer is lost, or late; a request is late, or lost; a user gives up; the grace
// begins, validity ends, a lease runs out; etcd refuses a request, has no space, or does not let
// somebody read; watches fall silent, and are made anew; a read of the state is answered late; a
// process is killed; etcd loses everything. An operator deletes, overwrites or puts K, deletes or
// overwrites a place, deletes or overwrites a slot, or revokes a lease. Somebody puts a key below
// K/ that is not a place, asks a holder to stop, or pauses the lock. History is compacted as soon
// as no watch needs it, or never.
//
// # What is checked
//
//   - One holder: never two at work but those who share the lock, a Mutex included, nobody while
//     the lock is paused, and nobody takes a K that is there, or shares the lock beside it. Who
//     loses the lock by the operator's force does not count until it is told.
//   - Slots: never more at work than there are, and never beside anybody else. Each place that has
//     a slot has one of its own, of one revision with the place. Nobody takes a slot beside a K
//     that is not its own, or passed on with it.
//   - Nobody stuck: from each state the moves that are neither faults nor late requests can
//     lead to where all have had their turns or are gone, and no key is left. In an exploration
//     that is checked of each state, so once faults cease every fair run gets there. In a
//     random run all have to get there.
//   - In order: whoever gets the lock is the oldest, by a pass, a claim, or a late one. Whoever
//     shares it has nobody before it who does not. Whoever gets a slot has nobody before it but
//     others who have one. Whoever waits has its place.
//   - Tokens grow from holder to holder, but not among those who share the lock. Those of one slot
//     grow, and all of slots are greater than those of whoever had the lock alone before. A Mutex's
//     is the revision that showed that it holds.
//   - No strays: a late request puts no key of a contender that has gone, unless its lease is
//     about to be revoked.
//   - No false alarm: nobody is told of a loss without one, nor gives up a place without a
//     cause.
//   - The tail names whoever has joined behind others, nobody who has left or has a slot, and no
//     older place than the newest linked one. The first change of it that a place sees is that
//     somebody joins.
//   - A holder that passes the lock has its place. Answers show K and the place as they were, which
//     slots are free, and of which kind the line is. A request to join writes no place that is
//     there.
//   - A break, or the end of a pause, hits whom it names. A note of since when the lock is held is
//     one of who has it, and is written over nothing.
//   - The machine: two requests are never under way at once, no watch outlives it, each change
//     of state is an arrow of the diagram.
//
// # What is assumed
//
//   - Work ends before validity does: the holder's guard kills in time, and validity is counted
//     short. Tests of internal/lease say so of renewals that a deposed leader acknowledges.
//   - Reads are linearizable, and there is one history. Where etcd loses everything its
//     revisions go on here, and leases notice that at their next request.
//   - The permission to write the tail is not taken away from who has written it: where a
//     request about the tail is refused, the tail may stay until the lease ends.
//
// # What is not modelled
//
//   - Time: a timer may end at any moment. What is late is late by any number of moves.
//   - The user's side of a private lease beyond that it is revoked where it has to be.
//   - Force on a Mutex's key, and late writes of its: it is never told.
//   - A tail that an operator writes or deletes; a place that it writes without its lease.
//   - In explorations, watches of one machine that tell of later revisions first, and reads
//     after renewals that nobody needs. Random runs have both.
package model
