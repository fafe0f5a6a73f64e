// Package message is what machines of package protocol are told, what they ask for, and the words
// of both: keys, places, requests, answers.
package message

// A KV is a key as it was read or written. The zero KV is an absent key.
type KV struct {
	Create, Mod int64 // revisions
	Lease       int64
	Value       string
	Seat        int // the slot that a place has, by its record: 1 is the first one, 0 means none
}

// Exists reports whether the key is there.
func (kv KV) Exists() bool { return kv.Create > 0 }

// Sits reports whether a key is a place that has a slot, and so does not stand before those who
// wait in a line of a kind, if it is of that itself.
func (kv KV) Sits(is, of Kind) bool { return kv.Seat > 0 && of > Plain && is == of }

// Keys is the lock's key K and a place, in one revision.
type Keys struct{ Lock, Place KV }

// Holds reports whether the place holds the lock: both were written in one revision. Whoever takes
// a slot passes K on in that revision, and does not hold that.
func (k Keys) Holds() bool {
	return k.Place.Exists() && k.Place.Seat == 0 && k.Lock.Mod == k.Place.Mod
}

// A Link is what a tail names: a linked place, and who stands there. The zero Link is that of an
// absent tail, or of one that cannot be read.
type Link struct {
	Place string // the key
	Lease int64
	ID    string
}

// A Kind is that of a line: who is of another one than the oldest place in it must not stand there.
// It is how many slots a semaphore has.
type Kind int32

// The kinds that no semaphore has: of whoever wants the lock alone, or shares it; and of strangers,
// who may stand in any line.
const (
	Plain    Kind = 0
	Stranger Kind = -1
)

// An Ahead is a key that stands before the place, as it was created.
type Ahead struct {
	Key    string
	Create int64
	Link   Link // the tail that named it, if one did
	Seen   bool // it was there
	Held   bool // it was a place of the holder's
	Gone   bool
	Kind   Kind
}

// Left reports whether somebody left the line at a place that is gone, and perhaps many with them.
// A place that held the lock, and one that was gone before it was seen, do not show that: the line
// moves, and the history of the tail, which is that of all turns, has only places that are gone.
func (a Ahead) Left() bool { return a.Seen && !a.Held }

// Granted reports whether an event wrote the place as only a grant writes it: as it was. What an
// operator puts there does not show that anybody held the lock.
func (a Ahead) Granted(e Event) bool {
	known := a.Link.Place == "" || e.ID == a.Link.ID && e.KV.Lease == a.Link.Lease
	return e.KV.Mod > e.KV.Create && e.Record && known
}

// Is compares a key that is there with the one that stood before the place, which was created
// before the revision than. Of a key that a tail has named the first reading tells when it was
// created.
// One that has a slot, of the kind of those who wait for it, does not stand before them any more.
func (a *Ahead) Is(kv KV, than int64, of Kind) {
	if a.Link.Place != "" && !a.Seen && kv.Create < than {
		a.Create = kv.Create
	}
	a.Seen = true
	a.Gone = a.Gone || kv.Create != a.Create
	if kv.Sits(a.Kind, of) {
		a.Gone, a.Held = true, true
	}
}

// A Successor is who joined next, and the revision of that.
type Successor struct {
	Link
	Joined int64
}

// A Config is what a machine is made with.
type Config struct {
	Lock, Place string // keys
	Lease       int64
	ID          string // the value of K while the lock is ours
	Record      string // the value of the place
	Slot        int    // of a semaphore: the one to ask for next, to begin with any
	Kind        Kind   // of the lines that it may stand in
	Linked      bool   // the tail may be written
	Shares      bool   // the lock, with others who do
	Try         bool   // not to wait
	Lone        bool   // nobody was there the last time
	Shared      bool   // the lease serves others: what is left under it is removed key by key
}

// IsOwn reports whether K was written for the place, or for another one of its lease: of this lock,
// or of another one of the session.
func (c *Config) IsOwn(lock KV) bool { return lock.Exists() && lock.Lease == c.Lease }

// An Input is something that a machine is told: one of the types of this file.
type Input interface{ input() }

type (
	// Acquire asks for the lock. It is the first input of a machine.
	Acquire struct{}

	// Cancel ends the wait for the lock. The driver gives up the request that is under way, if
	// there is one, and answers it.
	Cancel struct{}

	// Release gives the lock back, also one that was lost.
	Release struct{}

	// Settled says that each request to join that was sent has been answered.
	Settled struct{}

	// Lasting says that the lock has been held for long enough to be looked after.
	Lasting struct{}

	// Elapsed says that the time of the last Timer effect is over.
	Elapsed struct{}

	// Renewed says that the lease was renewed.
	Renewed struct{}

	// Unreadable says that a waiter may not read its state, and would not hear of a grant.
	Unreadable struct{}

	// GraceBegun says that validity ends within the grace, ValidityOver that it has ended.
	GraceBegun   struct{}
	ValidityOver struct{}

	// LeaseLost says that the lease is useless. History says that etcd's history is another one.
	LeaseLost struct{ History bool }
)

// A Watched says which key a watch is for.
type Watched int

// The keys that a machine watches.
const (
	OnPlace Watched = iota // its own place
	OnLock                 // K
	OnTail
	OnAhead  // the predecessor
	OnSlots  // all slots of a semaphore
	Watchers // how many there are
)

// Watching says that a watch was created and misses nothing that comes after the revision Since.
// Again says that it was created anew, and something may have been missed before.
type Watching struct {
	Of    Watched
	Since int64
	Again bool
}

// An Event is what a watch has told.
type Event struct {
	Of      Watched
	Deleted bool
	KV      KV     // as it was written, or with the revision of the deletion
	Link    Link   // of the tail, if it can be read
	Record  bool   // the value is the record of a place
	ID      string // in that record
	Slot    int    // which one it is about, of OnSlots
}

// An Observation is an answer to the read of the machine's state, which the driver makes when it is
// told to Observe, and after renewals.
type Observation struct {
	Rev   int64
	Keys  Keys   // with K, or the slot of the seat
	Seat  int    // that the place had
	Ahead KV     // the key of the predecessor
	Of    string // which key that was, "" for none
}

// An Outcome is what became of a request.
type Outcome int

// The outcomes.
const (
	Applied  Outcome = iota // or, of a read, answered
	Refused                 // by its comparisons: nothing was written
	Denied                  // the user lacks a permission: nothing was written
	Rejected                // refused for another reason that stays: nothing was written
	NoSpace                 // etcd has no space: it may have been applied, and will not be later
	Unknown                 // it may have been applied, or be applied later
)

// End returns why a request with this outcome, which was neither applied nor refused by its
// comparisons, ends the wait for the lock.
func (o Outcome) End() End {
	if o == Unknown || o == NoSpace {
		return Uncertain
	}
	return Failed
}

// An Answer is the outcome of the last request that was sent. The driver repeats a request until it
// knows the outcome, gives up, or etcd has refused it.
type Answer struct {
	Outcome  Outcome
	Repeated bool  // a try before the last one has an unknown outcome
	Rev      int64 // the revision of the answer

	// Keys is the state with which a refused transaction answers, and what reads have read.
	Keys Keys

	// Ours says of a request to join that a try before the last one has created the place, and Else
	// that it was put behind others.
	Ours, Else bool

	// Ahead is what stands before the place, by what a request to join or a read of the line has
	// found. The zero Ahead is nothing, or unknown.
	Ahead Ahead

	// Whole says of a read of the line that it was read as a whole.
	Whole bool

	// Link is the tail that was read, if it is there, and Found a key that was asked for, or, of a
	// short line, or of the newest key, what Ahead is.
	Link  Link
	Found KV
	Tail  KV
	Some  bool // there are others: places, or keys written in a revision

	// Free is a slot that is free, from the one on that was asked for, -1 if all are taken. Kind
	// is that of the oldest place in line.
	Free int
	Kind Kind
}

func (Acquire) input()      {}
func (Cancel) input()       {}
func (Release) input()      {}
func (Settled) input()      {}
func (Lasting) input()      {}
func (Elapsed) input()      {}
func (Renewed) input()      {}
func (Unreadable) input()   {}
func (GraceBegun) input()   {}
func (ValidityOver) input() {}
func (LeaseLost) input()    {}
func (Watching) input()     {}
func (Event) input()        {}
func (Observation) input()  {}
func (Answer) input()       {}
