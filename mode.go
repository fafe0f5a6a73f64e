package etcdlock

import "fmt"

// A Mode is how a lock is held: by one alone, or by several together.
type Mode int

// The modes. Contenders of both stand in one line, first come first served: neither starves. The
// only way from one to the other is Unlock and Lock.
const (
	// Exclusive is held by one, while nobody else holds the lock in any mode. A Mutex of etcd's is
	// that, whatever the mode of the others.
	Exclusive Mode = 0

	// Shared is held by any number together: all that stand side by side in line, and whoever comes
	// while nobody waits for the lock Exclusive. It takes a right to read the tail (K~tail), and
	// writes nothing but its place in line.
	//
	// Tokens of those who hold the lock together may be equal, and an older one is as good as a
	// newer one. So what they fence must know the mode of a token: one of Exclusive is accepted if
	// it is greater than all that were seen, one of Shared if it is greater than all of Exclusive.
	Shared Mode = -1
)

// String returns the name of the mode.
func (m Mode) String() string {
	switch m {
	case Exclusive:
		return "exclusive"
	case Shared:
		return "shared"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// check refuses a mode that there is not.
func (m Mode) check() error {
	if m != Exclusive && m != Shared {
		return fmt.Errorf("there is no %v, only Exclusive and Shared", m)
	}
	return nil
}
