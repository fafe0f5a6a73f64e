package etcdlock

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/etcdlock/etcdlock/internal/notices"
)

// tenants are the contenders that hang on a lease, and what is done for all of them together. Three goroutines work for them: the
// renewer, which makes RPCs and may hang; the keeper, which does nothing but watch the clock; and now and then the looker,
// which reads what etcd has of those of whom a watch told something.
//
// The lease of a Lock of its own has goroutines while a contender lasts. That of a session has them until the session ends.
type tenants struct {
	upkeep
	notices notices.Queue
	shared  bool   // of a session
	probe   string // a key that may be read, if there is nobody of whom to read the state: that of the last lock that was acquired

	crowd   sync.Mutex
	all     []*contender
	next    int // whose state is read at the next renewal
	mostOps int // in one transaction, 0 as long as etcd has refused none
	unseen  []*contender
	young   []*contender // who may not last for long enough to be looked after
	older   []*contender // who were young before them
	ghosts  []*ghost
	looks   bool  // the looker runs
	renews  bool  // the renewer and the keeper run
	over    error // why the lease is of no use any more
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	follows atomic.Bool // somebody waits for the watches to have told all
}

// attach takes a contender in. It returns why the lease is of no use any more, if so.
func (l *lease) attach(c *contender) error {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if !l.shared {
		l.upkeep = upkeep{c.refresh, c.grace, c.log}
		l.bound(c.timing)
	}
	l.revive()
	c.seat = len(l.all)
	l.all = append(l.all, c)
	return l.over
}

// share makes the lease a session's. It is looked after from now on.
func (l *lease) share(u upkeep) {
	l.crowd.Lock()
	l.upkeep, l.shared = u, true
	l.revive()
	l.crowd.Unlock()
	l.maintain()
}

func (l *lease) setProbe(key string) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	l.probe = key
}

// revive is called with crowd locked.
func (l *lease) revive() {
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithCancel(context.Background())
	}
}

// detach lets a contender go. For the last one of a Lock's own lease the goroutines end with it.
func (l *lease) detach(c *contender) {
	l.crowd.Lock()
	if c.seat < 0 {
		l.crowd.Unlock()
		return
	}
	last := len(l.all) - 1
	l.all[c.seat] = l.all[last]
	l.all[c.seat].seat = c.seat
	l.all[last] = nil
	l.all = l.all[:last]
	c.seat = -1
	empty := last == 0 && !l.shared
	l.crowd.Unlock()
	if empty {
		l.halt()
	}
}

// halt ends the goroutines and waits for them.
func (l *lease) halt() {
	l.crowd.Lock()
	if l.ctx == nil {
		l.crowd.Unlock()
		return
	}
	l.cancel()
	l.crowd.Unlock()
	l.running.Wait()
	l.forgetAll()
	l.crowd.Lock()
	defer l.crowd.Unlock()
	l.ctx, l.renews, l.looks, l.unseen = nil, false, false, nil
}

// everybody returns the contenders as they are now.
func (l *lease) everybody() []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return slices.Clone(l.all)
}

// inBackground runs something for as long as it takes, at most until the lease is not looked after any more. It reports whether it does.
func (l *lease) inBackground(do func(context.Context)) bool {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		return false
	}
	ctx := l.ctx
	l.running.Go(func() { do(ctx) })
	return true
}

// haunters returns the places that the session takes back.
func (l *lease) haunters() []*ghost {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return slices.Clone(l.ghosts)
}

// finish says that the lease is of no use any more, and why.
func (l *lease) finish(err error) {
	for _, c := range l.retire(err) {
		c.bereft(err)
	}
}

// retire says why the lease is of no use any more, and returns who has to be told. Whoever comes later finds out by itself.
func (l *lease) retire(why error) []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.over == nil {
		l.over = why
	}
	return slices.Clone(l.all)
}

// gone returns why the lease is of no use any more, nil if it is, as far as is known.
func (l *lease) gone() error {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return l.over
}
