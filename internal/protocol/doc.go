// Package protocol is what a contender for a lock does, as a pure state machine: it has no
// goroutine, no clock and no mutex, and knows etcd only by what it is told. The same inputs bring
// the same effects. docs/protocol.md says why each step is safe; internal/wire has the bytes.
//
// A Machine is one place in line, from the request to join until nothing of it is left. Whoever has
// to begin again makes a new Machine, with another place.
//
//	Idle --> Joining ------------------------------> Held --> Lost
//	            |                                     ^ |       |
//	            v             granted                 | |       |
//	         Waiting --------------------> (First) ---+ |       |
//	          ^   |  predecessor gone         ^       | |       |
//	          |   v                           |       | |       |
//	         Looking <-------> Claiming ------+-------+ |       |
//	                                                    v       v
//	   (from each of those that are not held) ------> Leaving <-+
//	                                                    |  ^
//	                                                    v  |
//	                                        Gone <-- Unconfirmed
//
// The drawing leaves some arrows out. These are all:
//
//	Idle        -> Joining
//	Joining     -> Waiting Looking First Held Leaving Gone
//	Waiting     -> Looking Claiming First Held Leaving
//	Looking     -> Waiting Looking Claiming First Held Leaving
//	Claiming    -> Looking First Held Leaving
//	First       -> Held Leaving
//	Held        -> Lost Leaving
//	Lost        -> Leaving
//	Leaving     -> Unconfirmed Gone
//	Unconfirmed -> Leaving Gone
//
// Joining: a request to join is under way. Waiting: another place stands before ours, and we hear
// of it. Looking: it is gone, or unknown, and the line or its history is read. Claiming: it may be
// our turn, and a claim is under way. First: K is ours, which of a semaphore is the right to be
// next, and a slot is asked for, or waited for. Held: the lock is ours, or a slot of it. Lost: it
// was. Leaving: what there is in etcd is being removed, or passed on. Unconfirmed: something may be
// there, or appear later, and is removed when it does. Gone: nothing of the place is left, or its
// lease takes it along.
package protocol
