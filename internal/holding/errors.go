package holding

import (
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/protocol"
)

// Sentinels. Package etcdlock exports them, and says what they mean.
var (
	ErrNotHeld     = errors.New("the lock is not held")
	ErrBusy        = errors.New("the lock is held by somebody else")
	ErrNoAnswer    = errors.New("etcd did not answer")
	ErrUnconfirmed = errors.New("the release is not confirmed")
	ErrClosed      = errors.New("closed")
)

// errUnlocked is why the contexts handed out end when the holder unlocks.
var errUnlocked = fmt.Errorf("unlocked: %w", ErrNotHeld)

// Public makes what users get. It has the types of package etcdlock, which imports this one.
type Public struct {
	Held func(h *Holding) any
	Lost func(h *Holding, why protocol.Reason, cause error) (reason fmt.Stringer, err error)
}

// Unconfirmed says of an error that leases may be left.
func Unconfirmed(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(ErrUnconfirmed, err)
}

// Unconfirmed is the error of a release of which it is not known, because of err, whether it was done.
func (h *Holding) Unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", h.Place.Lock, ErrUnconfirmed, err)
}

// MustBeUnlocked is the error of a call that wants a lock that was lost and is still valid.
func (h *Holding) MustBeUnlocked() error {
	return fmt.Errorf("it was lost, and is to be unlocked first: %w", h.LostError())
}

// LostError returns nil as long as the lock is held. The end of validity counts even before the
// watchdog has noticed it.
func (h *Holding) LostError() error {
	lost := h.knownLoss()
	if lost != nil || h.ValidUntil().Until() > 0 {
		return lost
	}
	h.OnGrace()
	if lost = h.knownLoss(); lost != nil {
		return lost
	}
	_, lost = h.lock.Public.Lost(h, protocol.Unrenewed, h.Why())
	return lost
}

func (h *Holding) knownLoss() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}
