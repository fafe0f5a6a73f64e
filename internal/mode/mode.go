// Package mode has the ways in which a lock can be held.
package mode

import "fmt"

// A Mode is how a lock is held: by one alone, by several together, or by as many as it has slots.
type Mode int

// The modes beside those of semaphores.
const (
	Exclusive Mode = 0
	Shared    Mode = -1
)

// MaxSlots is how many slots a semaphore can have.
const MaxSlots = 1000

// OfSlots returns the mode of a semaphore, as package etcdlock says of its Slots.
func OfSlots(n int) Mode {
	switch {
	case n == 1:
		return Exclusive
	case n < 1: // there is no such mode
		return Shared - 1
	}
	return Mode(n)
}

// Slots returns how many slots there are, 0 in modes that have none.
func (m Mode) Slots() int { return max(int(m), 0) }

// String returns the name of the mode.
func (m Mode) String() string {
	switch {
	case m == Exclusive:
		return "exclusive"
	case m == Shared:
		return "shared"
	case m > 0:
		return fmt.Sprintf("one of %d slots", int(m))
	}
	return fmt.Sprintf("mode %d", int(m))
}

// Name returns the name of the mode for programs: that of all semaphores is the same.
func (m Mode) Name() string {
	if m > 0 {
		return "slots"
	}
	return m.String()
}

// As says as what a lock is used that has the mode.
func (m Mode) As() string {
	switch {
	case m > 0:
		return fmt.Sprintf("as a semaphore of %d", int(m))
	case m == Shared:
		return "as a shared lock"
	}
	return "as an exclusive lock"
}

// Check refuses a mode that there is not.
func (m Mode) Check() error {
	switch {
	case m > MaxSlots:
		return fmt.Errorf("%d slots are too many: a lock has 1 to %d", int(m), MaxSlots)
	case m < Shared || m == 1:
		return fmt.Errorf("the mode must be Exclusive, Shared or Slots(n), with n from 1 to %d", MaxSlots)
	}
	return nil
}
