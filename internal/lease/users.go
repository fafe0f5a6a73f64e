package lease

import "sync"

// users counts who uses a lease: its members, and who has left and still gives back what it held.
type users struct {
	mu    sync.Mutex
	n     int
	last  func() // is called when nobody uses the lease any more; nil: it goes on
	ended bool   // that was done
}

// Use counts one user more. It reports whether the lease can be used.
func (u *users) Use() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	return !u.ended
}

// Done counts one user less.
func (u *users) Done() {
	u.mu.Lock()
	u.n--
	u.mu.Unlock()
	u.check()
}

// AfterLast has a function called, once, when nobody uses the lease any more. From then on nobody
// can.
func (u *users) AfterLast(do func()) {
	u.mu.Lock()
	u.last = do
	u.mu.Unlock()
	u.check()
}

func (u *users) check() {
	u.mu.Lock()
	do := u.last
	if u.n > 0 || do == nil {
		u.mu.Unlock()
		return
	}
	u.last, u.ended = nil, true
	u.mu.Unlock()
	do()
}
