package holding

import (
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
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

// errOvertaken is why a release that finds nothing does not tell whether the lock was lost before.
var errOvertaken = errors.New("its session was closed before etcd had answered")

// LossText returns what the error of a lost lock says.
func LossText(key string, why message.Reason, cause error) string {
	switch {
	case errors.As(cause, new(*record.Break)):
		return fmt.Sprintf("lock %q was %v", key, cause)
	case cause != nil:
		return fmt.Sprintf("lock %q lost: %v: %v", key, why, cause)
	}
	return fmt.Sprintf("lock %q lost: %v", key, why)
}

// Public makes what users get. It has the types of package etcdlock, which imports this one.
type Public struct {
	Held func(h *Holding) any
	Lost func(h *Holding, why message.Reason, cause error) (reason fmt.Stringer, err error)
	Busy func(h *Holding, there wire.Busy) error
	// OtherMode is told in which mode the lock is, and the id of the oldest in line.
	OtherMode func(h *Holding, is mode.Mode, id string) error
}

// Unconfirmed says of an error that leases may be left.
func Unconfirmed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrUnconfirmed, err)
}
