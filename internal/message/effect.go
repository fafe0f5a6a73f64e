package message

import "fmt"

// A Do says what an Effect asks for.
type Do int

// What effects ask for.
const (
	// Send asks for a request. The next one is sent only when it was answered.
	Send Do = iota
	// Watch begins to watch a key, from the revision From on, or from now if that is 0. Unwatch
	// ends it.
	Watch
	Unwatch
	// Observe asks for a read of the state, soon.
	Observe
	// Timer asks for an Elapsed after some time. Only the last one counts.
	Timer
	// Track leaves the machine to the driver until it is Gone: something may appear at the place.
	// The driver tells of each renewal, and when the requests to join are Settled.
	Track

	// TellWaiting says that the lock is waited for, behind another place.
	TellWaiting
	// TellHeld says that the lock is held, with a token.
	TellHeld
	// TellBusy says that somebody else has the lock or is before us. The last read has found who.
	TellBusy
	// TellEnd says why the place will not get the lock.
	TellEnd
	// TellLost says why the lock is lost, or about to be, and what was written over it.
	// TellExpired says that others may hold it from now on.
	TellLost
	TellExpired
	// TellReleased says that the lock was given back, and whether that is confirmed; with a Reason
	// other than 0, that it had been lost before.
	TellReleased
	// TellGone says that nothing of the place is left, as far as it is for the machine to know.
	TellGone
)

// A Delay is how long a Timer takes.
type Delay int

// The delays.
const (
	// InPassing is for the news that the lock was passed to come, when the holder's place is gone.
	InPassing Delay = iota
	// Spread is a random time, so that waiters who have searched in vain do not all read the line
	// at once.
	Spread
	// Retry is for etcd to accept what it refused. It grows as long as it is refused.
	Retry
)

// An Effect is something that the driver has to do, in the order in which Step returns them.
type Effect struct {
	Do        Do
	Request   Request // to Send
	Of        Watched // to Watch, or not
	Key       string  // that it is
	From      int64
	Delay     Delay
	Token     int64
	End       End
	Reason    Reason
	Written   string // of TellLost and TellReleased
	Confirmed bool
}

// A Request is a transaction or a read, by the name of the function of internal/wire.
type Request struct {
	Name Name
	// The revision that it compares with: of creation, of the last write, or the token.
	Rev    int64
	Tail   bool      // the tail may name the place
	Before Link      // Leave: what the tail named before
	Next   Successor // Pass, TakeSlot
	Place  string    // HistoryRead: whose
	Slot   int       // AcquireIfFree, TakeSlot: which one
	Seat   int       // that the place has
}

// Joins reports whether the request creates the place.
func (r Request) Joins() bool { return r.Name == AcquireIfFree || r.Name == AcquireOrJoin }

// Claims reports whether the request is to find out whether it is our turn.
func (r Request) Claims() bool {
	return r.Name == Claim || r.Name == ClaimBehindHolder || r.Name == ClaimOldest || r.Name == TakeSlot
}

// Granted returns the revision in which a key that the request is about was given to whoever has
// it, and the place of that one was written. A slot is created then: whoever overwrites it does not
// take it from its holder.
func (r Request) Granted(found KV) int64 {
	if r.Seat > 0 {
		return found.Create
	}
	return found.Mod
}

// Releases reports whether the request gives the lock back, or passes it on.
func (r Request) Releases() bool { return r.Name == Pass || r.Name == GiveBack }

// WritesForOthers reports whether the request writes something under the lease of another place.
func (r Request) WritesForOthers() bool {
	return r.Name == Pass || r.Name == TakeSlot && r.Next.Place != "" || r.Name == Leave && r.Before.Place != ""
}

// A Name is that of a function of internal/wire. For a place that shares the lock it is another one
// that is asked for: package translate says which.
type Name string

// The requests. The last of them are reads.
const (
	AcquireIfFree     Name = "AcquireIfFree"
	AcquireOrJoin     Name = "Acquire"
	Claim             Name = "Claim"
	ClaimBehindHolder Name = "ClaimBehindHolder"
	ClaimOldest       Name = "ClaimOldest"
	TakeSlot          Name = "TakeSlot"
	Pass              Name = "Pass"
	GiveBack          Name = "Release"
	LeaveLost         Name = "LeaveLost"
	Leave             Name = "Leave"
	Remove            Name = "Remove"
	RemoveKey         Name = "RemoveKey"
	RemoveTail        Name = "RemoveTail"

	ReadBusy   Name = "BusyRead"
	ReadNewest Name = "NewestOfAllRead"
	ReadLine   Name = "LineRead"
	// And, where strangers' keys are in the way, what is behind them.
	ReadFar     Name = "NewestRead"
	ReadHistory Name = "HistoryRead"
	ReadState   Name = "StateRead"
	ReadTail    Name = "KeyRead"
	ReadWritten Name = "WrittenRead"
	ReadKind    Name = "KindRead"
)

// An End says why a place will not get the lock.
type End int

// The ends.
const (
	NotEnded    End = iota
	Cancelled       // the caller gave up
	Busy            // the caller only tries, and somebody else is there
	OtherKind       // the line is of another kind
	Failed          // etcd refuses what has to be done; the last answer says why
	Uncertain       // the outcome of a request is unknown
	Deleted         // the place was deleted from outside
	Overwritten     // the place was overwritten from outside
	NoLease         // the lease is useless
	NoHistory       // etcd was wiped, or restored from a backup
)

// String says why, in half a sentence. Of Failed etcd's answer says it, and the string is empty.
func (e End) String() string {
	const gone = "the place in line is gone"
	return map[End]string{
		Cancelled:   "the wait was given up",
		Busy:        "somebody else is there",
		OtherKind:   "the line is of another kind",
		Uncertain:   gone + ": outcome unknown",
		Deleted:     gone + ": deleted from outside",
		Overwritten: gone + ": overwritten from outside",
		NoLease:     gone,
		NoHistory:   gone,
	}[e]
}

// A Reason says how a lock was lost.
type Reason int

// The reasons, which package etcdlock exports. After a loss by force another contender may have the
// lock already.
const (
	NotLost Reason = iota
	Unrenewed
	KeyDeleted
	KeyOverwritten
	PlaceLost
	LeaseGone
	HistoryLost
	SlotLost
)

// String returns the reason as half a sentence.
func (r Reason) String() string {
	switch r {
	case Unrenewed:
		return "its lease could not be renewed in time"
	case KeyDeleted:
		return "its key was deleted from outside"
	case KeyOverwritten:
		return "its key was overwritten from outside"
	case PlaceLost:
		return "its place in line was deleted or overwritten from outside"
	case LeaseGone:
		return "its lease is gone (revoked, expired, or etcd lost its data), or all its keys were deleted at once"
	case HistoryLost:
		return "etcd's data went back in time (wiped, or restored from a backup)"
	case SlotLost:
		return "its slot was deleted from outside"
	}
	return fmt.Sprintf("reason %d", int(r))
}

// Forced reports whether somebody else may already hold the lock, as after a reason that is not
// known.
func (r Reason) Forced() bool {
	switch r {
	case NotLost, Unrenewed, KeyDeleted, KeyOverwritten:
		return false
	}
	return true
}
