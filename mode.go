package etcdlock

import "github.com/etcdlock/etcdlock/internal/mode"

// A Mode is how a lock is held: by one alone, by several together, or by as many as it has slots.
type Mode = mode.Mode

// The modes. Contenders of Exclusive and Shared stand in one line, first come first served: neither
// starves. The only way from one to the other is Unlock and Lock.
const (
	// Exclusive is held by one, while nobody else holds the lock in any mode. A Mutex of etcd's is
	// that, whatever the mode of the others.
	Exclusive = mode.Exclusive

	// Shared is held by any number together: all that stand side by side in line, and whoever comes
	// while nobody waits for the lock Exclusive. It takes a right to read the tail (K~tail), and
	// writes nothing but its place in line.
	//
	// Tokens of those who hold the lock together may be equal, and an older one is as good as a
	// newer one. So what they fence must know the mode of a token: one of Exclusive is accepted if
	// it is greater than all that were seen, one of Shared if it is greater than all of Exclusive.
	Shared = mode.Shared
)

// Slots returns the mode of a semaphore: n hold the lock at most, from 2 to 1000 (1 is Exclusive),
// first come first served. Each has a slot of its own, see [Held.Slot]. All that use the lock have
// to say the same n: who does not fails with a [*ModeError], as who wants a semaphore in another
// mode. It takes a right to write the tail (K~tail).
//
// A token grows from holder to holder of one slot: what it fences must know the slot, and accept it
// if it is greater than all that were seen of that slot.
func Slots(n int) Mode { return mode.OfSlots(n) }
