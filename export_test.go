package etcdlock

// KnowsNext reports whether a Lock that is held, or waits, knows who is next in line.
func (l *Lock) KnowsNext() bool {
	if c := l.current(); c != nil {
		return c.successor() != nil
	}
	for _, w := range watchesOf(l) {
		if c, ok := w.owner.(*contender); ok && c.owner == l && c.successor() != nil {
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
func (l *Lock) Watches() (n int) {
	for _, w := range watchesOf(l) {
		if w.since > 0 {
			n++
		}
	}
	return n
}

// watchesOf returns the watches of a lock's client as they are now.
func watchesOf(l *Lock) (all []watch) {
	s := streamOf(l.client)
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		all = append(all, *w)
	}
	return all
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
