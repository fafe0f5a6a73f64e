// Package locker is what a Lock does with its places in line: it takes one after another until the
// lock is granted, one caller at a time, and gives back what it holds.
//
// Lock order: turn before everything of the session and of the holding. The mutex of a Set before
// those of its locks, which are the last ones.
package locker

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/session"
)

// A Locker is one contender for a lock.
type Locker struct {
	calls
	public *holding.Public

	// Granted, if set, is called when a lock was granted and is not handed out yet: tests get in
	// between there.
	Granted func()

	at *holding.Holding // holds the lock, or lost it and was not unlocked yet; guarded by mu

	// Guarded by turn:

	places
	atHand *lease.Lease // of its own, without a place in line
	// The last one, if a request to join was not answered by its end; or nil.
	unknown *queue.Contender
	alone   bool // the lock was acquired at once the last time
}

// New returns a locker that holds nothing.
func New(s *session.Session, key, id string, public *holding.Public) *Locker {
	return &Locker{calls: newCalls(s, key), public: public, places: places{key: key, id: id}}
}

// Current returns what is held, or was lost and not unlocked yet, or nil.
func (l *Locker) Current() *holding.Holding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// Prepare grants the lease that the next Lock needs, unless there is one that it can use.
func (l *Locker) Prepare(ctx context.Context, s Settings) error {
	if err := l.take(ctx, nil); err != nil {
		return err
	}
	defer l.give()
	switch h := l.Current(); {
	case h == nil || h.IsExpired():
		_, err := l.prepare(ctx, s)
		return err
	case h.LostError() != nil:
		return h.MustBeUnlocked()
	}
	return nil
}

// A Call says what is asked of Lock.
type Call struct {
	Try bool // not to wait
	Own bool // not to join in what another call holds
}

// Lock waits for the lock, and returns what it holds then. What is held already is renewed.
func (l *Locker) Lock(ctx context.Context, how Call, s Settings) (*holding.Holding, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // nothing is sent for it
	}
	for {
		if h := l.Current(); h != nil && h.LostError() == nil {
			switch {
			case how.Own:
				return nil, fmt.Errorf("lock %q is held already: Run takes it, and gives it back, itself", l.key)
			case h.Place.Mode != s.Mode:
				return nil, otherMode(l.key)
			}
			if unlocked, err := h.Again(ctx, h.Refresh); !unlocked {
				return h, err
			}
		}
		if err := l.takeFor(ctx, how, s); err != nil {
			return nil, err
		}
		if h := l.Current(); h == nil || h.LostError() != nil {
			defer l.give()
			break
		}
		l.give() // to renew must not hold Unlock up
	}
	ctx, unanswered, stop := l.interruptible(ctx)
	defer stop()
	h := l.Current()
	if h != nil && !h.IsExpired() { // the work that stops would run beside that of the next one
		return nil, h.MustBeUnlocked()
	}
	for h == nil || h.LostError() != nil { // also one that is lost before it is handed out
		if h != nil {
			l.drop(ctx, h)
		}
		var err error
		if h, err = l.acquire(ctx, s, how.Try, unanswered); err != nil {
			return nil, err
		}
		if err := l.hold(h); err != nil {
			return nil, err
		}
	}
	l.alone, l.slot = h.Created() == h.Token(), h.Seat()
	return h, nil
}

func otherMode(key string) error {
	return fmt.Errorf("lock %q is held in another mode: it is to be unlocked first", key)
}

// hold has the locker have what was acquired. It fails if the session was closed meanwhile.
func (l *Locker) hold(h *holding.Holding) error {
	l.mu.Lock()
	l.at, l.atHand = h, nil
	l.mu.Unlock()
	// From here on Close of the session finds it; what came before has ended the lease.
	if errors.Is(h.Lease.Err(), holding.ErrClosed) {
		h.Dismiss()
		return fmt.Errorf("acquiring lock %q: %w", l.key, holding.ErrClosed)
	}
	return nil
}
