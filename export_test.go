package etcdlock

// KnowsNext reports whether the holder knows who is next in line.
func (l *Lock) KnowsNext() bool {
	c := l.current()
	return c != nil && c.successor() != nil
}

// ForgetNext makes a holder one that does not know who is next in line.
func (l *Lock) ForgetNext() {
	c := l.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.next, c.line.tailSince, c.line.changes = nil, 0, nil
}

// WaiterKnowsNext is KnowsNext for a Lock that waits.
func (l *Lock) WaiterKnowsNext() bool {
	for _, w := range watchesOf(l) {
		if c, ok := w.owner.(*contender); ok && c.owner == l && c.successor() != nil {
			return true
		}
	}
	return false
}

// Watches returns how many keys the client of a lock watches, as far as etcd has confirmed it.
func (l *Lock) Watches() (n int) {
	streams.Lock()
	defer streams.Unlock()
	if s := streams.of[l.client]; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, w := range s.watches {
			if w.since > 0 {
				n++
			}
		}
	}
	return n
}

func watchesOf(l *Lock) (all []*watch) {
	streams.Lock()
	defer streams.Unlock()
	s := streams.of[l.client]
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		all = append(all, w)
	}
	return all
}
