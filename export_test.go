package etcdlock

import "github.com/etcdlock/etcdlock/internal/watch"

// KnowsNext reports whether a Lock that is held, or waits, knows who is next in line.
func (l *Lock) KnowsNext() bool {
	if c := l.current(); c != nil {
		return c.successor() != nil
	}
	all, _ := watch.All(l.client)
	for _, w := range all {
		if c, ok := w.Owner().(*contender); ok && c.owner == l && c.successor() != nil {
			return true
		}
	}
	return false
}

// ForgetNext makes a holder one that does not know who is next in line.
func (l *Lock) ForgetNext() {
	c := l.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.next, c.line.tailSince, c.line.changes = nil, 0, nil
}

// Watches returns how many keys the client of a lock watches, as far as etcd has confirmed it.
func (l *Lock) Watches() int {
	_, created := watch.All(l.client)
	return created
}

// Holding returns what a Lock holds at present, nil if it holds nothing.
func (l *Lock) Holding() *Held {
	if c := l.current(); c != nil {
		return &c.held
	}
	return nil
}

// Contexts returns how many contexts of a Lock that is held are remembered.
func (l *Lock) Contexts() int {
	c := l.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.handed)
}
