package etcdlock

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Sentinels, to be asked for with errors.Is.
var (
	// ErrNotHeld says that there was nothing to unlock. A *LostError is one too.
	ErrNotHeld = holding.ErrNotHeld

	// ErrBusy is what each *BusyError is, for errors.Is.
	ErrBusy = holding.ErrBusy

	// ErrMode is what each *ModeError is, for errors.Is.
	ErrMode = errors.New("the lock is in use in another mode")

	// ErrNoAnswer says that etcd did not answer within ConnectTimeout. The cause is wrapped beside
	// it, if it is known.
	ErrNoAnswer = holding.ErrNoAnswer

	// ErrUnconfirmed says that the outcome of a release is not known. Whoever gets it no longer
	// holds the lock, and the lock frees itself when its lease runs out, at the latest one TTL
	// after the last renewal (later by a TTL and an election if etcd elects a new leader).
	ErrUnconfirmed = holding.ErrUnconfirmed

	// ErrClosed is what a Lock call that waits fails with when its lock is closed, or its session.
	// The locks of a session that was closed cannot be locked any more.
	ErrClosed = holding.ErrClosed
)

// A BusyError is TryLock's answer when somebody else holds the lock or stands in line for it.
// errors.Is(err, ErrBusy) holds for it.
type BusyError struct {
	Key    string
	Holder string // the id of who holds the lock; empty if it is, or nobody does for the moment
	Place  int    // which place in line a waiter would have got, by the keys below Key/: 1 is next

	// Holders has the ids of up to four who share the lock, or have its slots. It may be empty: who
	// shares a lock is named only where few are in line, and no other keys are below Key/.
	Holders []string

	held         bool // by somebody
	shares       bool // who tried
	more         bool // Holders than these
	slots, taken int  // of a semaphore
}

// Error says who has the lock.
func (e *BusyError) Error() string {
	switch {
	case e.slots > 0 && e.taken < e.slots:
		return fmt.Sprintf("lock %q is not free: somebody stands in line for it, or has it in another way, and %d of %d slots are taken", e.Key, e.taken, e.slots)
	case e.slots > 0:
		return fmt.Sprintf("no slot of lock %q is free: %d of %d are taken (%s)", e.Key, e.taken, e.slots, e.holders())
	case !e.held && len(e.Holders) > 0 && e.shares:
		return fmt.Sprintf("lock %q is shared by %s, and somebody waits who wants it alone", e.Key, e.holders())
	case !e.held && len(e.Holders) > 0:
		return fmt.Sprintf("lock %q is shared by %s", e.Key, e.holders())
	case !e.held:
		return fmt.Sprintf("lock %q is not free: somebody shares it, or stands in line for it", e.Key)
	}
	return fmt.Sprintf("lock %q is held by %q", e.Key, e.Holder)
}

// holders names those who have the lock together.
func (e *BusyError) holders() string {
	var quoted []string
	for _, id := range e.Holders {
		quoted = append(quoted, strconv.Quote(id))
	}
	s := strings.Join(quoted, ", ")
	if e.more {
		s += " and others"
	}
	return s
}

// A ModeError says that a lock is in use in another mode: it is a semaphore, and wanted otherwise,
// or the other way round, or it is one with another number of slots. The oldest in line decides.
// errors.Is(err, ErrMode) holds for it.
type ModeError struct {
	Key        string
	Have, Want Mode
	ID         string // of the oldest in line
}

// Error names both modes.
func (e *ModeError) Error() string {
	return fmt.Sprintf("lock %q is used %s, by %q; it was asked for %s", e.Key, e.Have.As(), e.ID, e.Want.As())
}

// Is reports whether target is ErrMode.
func (e *ModeError) Is(target error) bool { return target == ErrMode }

// Is reports whether target is ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// A Reason says how a lock was lost. Its String is half a sentence, and Forced reports whether
// somebody else may already hold the lock.
type Reason = message.Reason

// The reasons.
const (
	// Unrenewed: the lease could not be renewed in time. Nobody else can hold the lock until
	// Expired is closed.
	Unrenewed = message.Unrenewed
	// KeyDeleted and KeyOverwritten: somebody took the lock key away or put a value of his own
	// there, or on a slot. The place in line is still there, so nobody else can hold the lock
	// before Unlock.
	KeyDeleted     = message.KeyDeleted
	KeyOverwritten = message.KeyOverwritten
	// PlaceLost, LeaseLost, HistoryLost and SlotLost are forced: somebody else may hold the lock
	// already. The place in line was deleted or overwritten; the lease was revoked or ran out;
	// etcd's data went back in time; the slot was deleted.
	PlaceLost   = message.PlaceLost
	LeaseLost   = message.LeaseGone
	HistoryLost = message.HistoryLost
	SlotLost    = message.SlotLost
)

// A LostError says that a lock that was held is lost, or about to be. errors.Is(err, ErrNotHeld)
// holds for it.
type LostError struct {
	Key    string
	ID     string
	Token  int64 // the fencing token of the holding that ended
	Reason Reason
	Err    error // what the last try to renew said, or who has broken the lock and why
}

// Error names the key, the reason and the cause.
func (e *LostError) Error() string { return holding.LossText(e.Key, e.Reason, e.Err) }

// Unwrap returns ErrNotHeld and the cause.
func (e *LostError) Unwrap() []error {
	if e.Err != nil {
		return []error{ErrNotHeld, e.Err}
	}
	return []error{ErrNotHeld}
}

// public makes what users get of what happens to a lock.
var public = &holding.Public{
	Held: func(h *holding.Holding) any { return &Held{h} },
	Lost: func(h *holding.Holding, why message.Reason, cause error) (fmt.Stringer, error) {
		lost := &LostError{Key: h.Place.Lock, ID: h.Place.ID, Token: h.Token(), Reason: why, Err: cause}
		return lost.Reason, lost
	},
	Busy: func(h *holding.Holding, there wire.Busy) error {
		e := &BusyError{Key: h.Place.Lock, Place: there.Below, Holders: there.Holders, held: there.Lock != nil, shares: h.Place.Mode == Shared, more: there.More}
		switch {
		case h.Place.Mode.Slots() > 0: // K is not for who has a slot, but for who is next
			e.slots, e.taken = h.Place.Mode.Slots(), there.Taken
		case e.held:
			e.Holder = record.Shown(there.Lock.Value)
		}
		return e
	},
	OtherMode: func(h *holding.Holding, is Mode, id string) error {
		return &ModeError{Key: h.Place.Lock, Have: is, Want: h.Place.Mode, ID: id}
	},
}
