package etcdlock

import (
	"fmt"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/message"
)

// Sentinels, to be asked for with errors.Is.
var (
	// ErrNotHeld says that there was nothing to unlock. A *LostError is one too.
	ErrNotHeld = holding.ErrNotHeld

	// ErrBusy is what each *BusyError is, for errors.Is.
	ErrBusy = holding.ErrBusy

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

	held bool // by somebody
}

// Error says who has the lock.
func (e *BusyError) Error() string {
	if !e.held {
		return fmt.Sprintf("lock %q is not free: somebody shares it, or stands in line for it", e.Key)
	}
	return fmt.Sprintf("lock %q is held by %q", e.Key, e.Holder)
}

// Is reports whether target is ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// A Reason says how a lock was lost.
type Reason int

// The reasons.
const (
	// Unrenewed: the lease could not be renewed in time. Nobody else can hold the lock until
	// Expired is closed.
	Unrenewed Reason = iota + 1
	// KeyDeleted and KeyOverwritten: somebody took the lock key away or put a value of his own
	// there. The place in line is still there, so nobody else can hold the lock before Unlock.
	KeyDeleted
	KeyOverwritten
	// PlaceLost, LeaseLost and HistoryLost are forced: somebody else may hold the lock already. The
	// place in line was deleted or overwritten; the lease was revoked or ran out; etcd's data went
	// back in time.
	PlaceLost
	LeaseLost
	HistoryLost
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
	case LeaseLost:
		return "its lease is gone (revoked, expired, or etcd lost its data)"
	case HistoryLost:
		return "etcd's data went back in time (wiped, or restored from a backup)"
	}
	return fmt.Sprintf("reason %d", int(r))
}

// Forced reports whether somebody else may already hold the lock.
func (r Reason) Forced() bool {
	switch r {
	case PlaceLost, LeaseLost, HistoryLost:
		return true
	}
	return false
}

// A LostError says that a lock that was held is lost, or about to be. errors.Is(err, ErrNotHeld)
// holds for it.
type LostError struct {
	Key    string
	ID     string
	Token  int64 // the fencing token of the holding that ended
	Reason Reason
	Err    error // what the last try to renew said, if that is the reason
}

// Error names the key, the reason and the cause.
func (e *LostError) Error() string {
	s := fmt.Sprintf("lock %q lost: %v", e.Key, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

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
		lost := &LostError{Key: h.Place.Lock, ID: h.Place.ID, Token: h.Token(), Reason: Reason(why), Err: cause}
		return lost.Reason, lost
	},
	Busy: func(key string, held bool, holder string, place int) error {
		return &BusyError{Key: key, Holder: holder, Place: place, held: held}
	},
}
