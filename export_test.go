package etcdlock

import (
	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/watch"
)

// KnowsNext reports whether a Lock that is held, or waits, knows who is next in line.
func (l *Lock) KnowsNext() bool {
	if h := l.inner.Current(); h != nil {
		return h.KnowsNext()
	}
	all, _ := watch.All(l.session.inner.Client)
	for _, w := range all {
		c, ok := w.Owner().(*queue.Contender)
		if !ok {
			continue
		}
		if h, ok := c.User().(*holding.Holding); ok && h.Owner() == l.inner && c.KnowsNext() {
			return true
		}
	}
	return false
}

// ForgetNext makes a holder one that does not know who is next in line.
func (l *Lock) ForgetNext() { l.inner.Current().ForgetNext() }

// Watches returns how many keys the client of a lock watches, as far as etcd has confirmed it.
func (l *Lock) Watches() int {
	_, created := watch.All(l.session.inner.Client)
	return created
}

// Watched returns how many keys the client of a lock has asked to watch.
func (l *Lock) Watched() int {
	all, _ := watch.All(l.session.inner.Client)
	return len(all)
}

// Holding returns what a Lock holds at present, nil if it holds nothing.
func (l *Lock) Holding() *Held {
	if c := l.inner.Current(); c != nil {
		return c.Held.(*Held)
	}
	return nil
}

// OnGranted has a function called when a Lock was granted and is not handed out yet.
func (l *Lock) OnGranted(do func()) { l.inner.Granted = do }

// Contexts returns how many contexts of a Lock that is held are remembered.
func (l *Lock) Contexts() int { return l.inner.Current().Contexts() }
