// Package places knows at which places of a lease somebody stands. Each place has one contender at
// most: one that wants the lock, or one that removes what somebody else has put there.
//
// Lock order: Places.mu is the last one, below driver.mu of package queue.
package places

import "sync"

// Places are the places of one lease. The zero Places are those of a lease that has none.
type Places struct {
	mu    sync.Mutex
	last  int64            // the number of the last place that was named
	taken map[string]*bool // by key; whether another contender was refused the place
}

// Next returns a number that no place of the lease was named with.
func (p *Places) Next() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	return p.last
}

// Stands reports whether somebody stands at a place. If so, the place is refused, as with Take.
func (p *Places) Stands(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refuseLocked(key)
}

// refuseLocked takes note that a place was refused, and reports whether somebody stands there. It
// is called with mu locked.
func (p *Places) refuseLocked(key string) bool {
	refused := p.taken[key]
	if refused != nil {
		*refused = true
	}
	return refused != nil
}

// Take reports whether nobody stood at a place. The caller stands there then, until Leave.
func (p *Places) Take(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuseLocked(key) {
		return false
	}
	if p.taken == nil {
		p.taken = make(map[string]*bool)
	}
	p.taken[key] = new(bool)
	return true
}

// Leave ends that. With unlessRefused, it does not if another contender was refused the place since
// Take, or since the last Leave: then the caller stands there on, and it reports false.
func (p *Places) Leave(key string, unlessRefused bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if refused := p.taken[key]; unlessRefused && refused != nil && *refused {
		*refused = false
		return false
	}
	delete(p.taken, key)
	return true
}

// Nobody reports whether nobody stands anywhere.
func (p *Places) Nobody() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken) == 0
}
