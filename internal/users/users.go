// Package users counts who uses something that ends with its last user.
//
// Lock order: Users.mu is the last one. The function of AfterLast is called without it.
package users

import (
	"context"
	"sync"
)

// Users are those who use something. The zero Users is nobody.
type Users struct {
	mu    sync.Mutex
	n     int
	last  func() // is called when nobody uses it any more; nil: it goes on
	ended bool   // that was done
}

// Use counts one user more. It reports whether it can be used.
func (u *Users) Use() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	return !u.ended
}

// Done counts one user less.
func (u *Users) Done() {
	u.mu.Lock()
	u.n--
	u.mu.Unlock()
	u.check()
}

// AfterLast has a function called, once, when nobody uses it any more. From then on nobody can.
func (u *Users) AfterLast(do func()) {
	u.mu.Lock()
	u.last = do
	u.mu.Unlock()
	u.check()
}

// Await waits until nobody uses it any more, and reports whether that was before ctx was done.
func (u *Users) Await(ctx context.Context) bool {
	last := make(chan struct{})
	u.AfterLast(func() { close(last) })
	select {
	case <-last:
	case <-ctx.Done():
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ended
}

func (u *Users) check() {
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
