package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/place"
)

// startAfter is how long a contender has to last before goroutines look after it: long enough that short holdings do
// without, short enough to notice an operator's hand within 50 ms.
const startAfter = 25 * time.Millisecond

// errUnlocked is why the contexts handed out end when the holder unlocks.
var errUnlocked = fmt.Errorf("unlocked: %w", ErrNotHeld)

// A contender is one place in line under a lease, from the request to join until nothing of it is left. Three
// kinds of goroutines work for it, all ended by stop: the renewer, which makes RPCs and may hang; once it holds the
// lock the keeper, which does nothing but watch the clock; and one follower for each of its keys.
type contender struct {
	settings
	key, id string
	lease   *lease
	place   string // its key in the line
	record  string // the value of place
	create  int64  // the CreateRevision of place
	strays  bool   // writes that name place may still be on their way
	alone   bool   // nobody was met the last time

	token atomic.Int64 // 0 while waiting

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	unstarted []*time.Timer // of goroutines that may not have begun; guarded by Lock.turn

	news chan struct{} // while waiting: something may have happened, look
	gone chan struct{} // while waiting: the lease is gone

	expired chan struct{} // the lock may be somebody else's
	over    chan struct{} // the holding has been unlocked

	mu    sync.Mutex
	lost  *LostError
	holds map[*holding]struct{}
}

// A holding is one context handed out by Lock.
type holding struct {
	cancel context.CancelCauseFunc
	forget func() bool // stops the waiting for its end
}

func newContender(l *Lock, s settings, ls *lease) *contender {
	c := &contender{
		settings: s,
		key:      l.key,
		id:       l.id,
		lease:    ls,
		place:    place.Key(l.key, ls.id, ls.places),
		record:   l.record(s.command),
		alone:    l.alone,
		news:     make(chan struct{}, 1),
		gone:     make(chan struct{}),
		expired:  make(chan struct{}),
		over:     make(chan struct{}),
		holds:    make(map[*holding]struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// stop ends the contender's goroutines. What they had sent may still be applied.
func (c *contender) stop() {
	c.cancel()
	for _, begin := range c.unstarted {
		if begin.Stop() {
			c.wg.Done()
		}
	}
	c.unstarted = nil
	c.wg.Wait()
}

// entered starts what a place in line needs.
func (c *contender) entered() { c.start(c.renew, c.followPlace) }

// granted starts what a holder needs, and what its place in line needs if it was never in line.
func (c *contender) granted() {
	token := c.token.Load()
	if c.create == token {
		c.start(c.renew, c.followPlace, c.keep, c.followKey)
	} else {
		c.start(c.keep, c.followKey)
	}
	c.log.Debug("lock acquired", "key", c.key, "token", token)
	select {
	case <-c.gone: // what the renewer found while the lock was being granted
		c.lose(LeaseLost, nil)
	default:
	}
}

// start runs goroutines after startAfter, or when the keeper has something to do if that is sooner. A holding that is
// over by then does without them.
func (c *contender) start(goroutines ...func()) {
	c.wg.Add(1)
	begin := time.AfterFunc(min(startAfter, c.lease.validUntil().Add(-c.grace).Until()), func() {
		defer c.wg.Done()
		for _, g := range goroutines {
			c.wg.Go(g)
		}
	})
	c.unstarted = append(c.unstarted, begin)
}

// renew is the renewer. It, too, goes by the clock that does not stop in suspend: who has slept renews at once.
func (c *contender) renew() {
	timer := boottime.NewTimer()
	defer timer.Close()
	for c.sleepUntil(timer, c.lease.sentAt().Add(c.refresh)) {
		resp, err := c.lease.renew(c.ctx, c.state()...)
		if c.renewed(resp, err) {
			return
		}
		c.log.Debug("lease renewed", "key", c.key, "valid_for", c.lease.validUntil().Until())
	}
}

// sleepUntil waits for an instant and reports whether the contender is still at it.
func (c *contender) sleepUntil(timer *boottime.Timer, at boottime.Instant) bool {
	timer.Reset(at)
	select {
	case <-timer.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

func (c *contender) followPlace() { c.follow(c.place) }
func (c *contender) followKey()   { c.follow(c.key) }

// follow is a follower: it watches one key from now on, and looks when something happens to it. What it may
// miss, the read behind each renewal finds.
func (c *contender) follow(key string) {
	for {
		w, ok := openWatch(c.ctx, c.lease, key)
		for ok {
			c.look()
			_, ok = <-w.events
		}
		w.close()
		if !sleep(c.ctx, pauseMax) {
			return
		}
	}
}

// look reads the contender's keys and draws conclusions. While waiting that is the waiter's own business.
func (c *contender) look() {
	if c.token.Load() == 0 {
		c.wake()
		return
	}
	resp, err := c.lease.read(c.ctx, c.state()...)
	c.learn(resp, err)
}

func (c *contender) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// state is the read that shows whether a contender is what it believes to be.
func (c *contender) state() []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(c.key), clientv3.OpGet(c.place)}
}

// learn draws conclusions from the answer to a read of state, or from a renewal's failure. It reports whether the
// lease is of no use any more.
func (c *contender) learn(resp *clientv3.TxnResponse, err error) (dead bool) {
	holds := c.token.Load() != 0
	switch {
	case errors.Is(err, errLeaseGone), errors.Is(err, errHistoryLost):
		reason := LeaseLost
		if errors.Is(err, errHistoryLost) {
			reason = HistoryLost
		}
		if holds {
			c.lose(reason, nil)
		} else {
			close(c.gone)
		}
		return true
	case err != nil:
		return c.ctx.Err() != nil
	case !holds:
		c.wake()
		return false
	case resp.Header.Revision < c.token.Load():
		return false // read before the lock was granted, answered after
	}
	if reason := c.whatIsLost(getOne(resp, 0), getOne(resp, 1)); reason != 0 {
		c.lose(reason, nil)
	}
	return false
}

// renewed draws conclusions from the answer to a renewal.
func (c *contender) renewed(resp *clientv3.TxnResponse, err error) (dead bool) {
	dead = c.learn(resp, err)
	if err == nil && c.token.Load() != 0 && !c.isLost() {
		c.onRenew()
	}
	return dead
}

// whatIsLost compares the lock's key and the holder's place with what they were when the lock was acquired:
// nothing but an operator's hand or the end of the lease changes either.
func (c *contender) whatIsLost(key, own *mvccpb.KeyValue) Reason {
	token := c.token.Load()
	switch {
	case own == nil && key == nil:
		return LeaseLost
	case own == nil || own.CreateRevision != c.create || own.ModRevision != token:
		return PlaceLost
	case key == nil:
		return KeyDeleted
	case key.ModRevision != token:
		return KeyOverwritten
	}
	return 0
}

// keep is the keeper. It is apart from the renewer because that one may hang.
func (c *contender) keep() {
	timer := boottime.NewTimer()
	defer timer.Close()
	// wait returns once validity ends within the given time, however often renewals move its end.
	wait := func(within time.Duration) bool {
		for {
			end := c.lease.validUntil().Add(-within)
			if end.Until() <= 0 {
				return true
			}
			if !c.sleepUntil(timer, end) {
				return false
			}
		}
	}
	if !wait(c.grace) {
		return
	}
	c.lose(Unrenewed, c.lease.lastError())
	if wait(0) {
		c.expire()
	}
}

// lose ends the contexts handed out. The first reason stays; a forced one ends validity, too.
func (c *contender) lose(reason Reason, cause error) {
	c.mu.Lock()
	if c.lost == nil {
		c.lost = c.loss(reason, cause)
		c.log.Info("lock lost", "key", c.key, "reason", reason)
	}
	c.endHolds(c.lost)
	c.mu.Unlock()
	if reason.Forced() {
		c.expire()
	}
}

func (c *contender) loss(reason Reason, cause error) *LostError {
	return &LostError{Key: c.key, ID: c.id, Revision: c.token.Load(), Reason: reason, Err: cause}
}

// endHolds is called with mu locked.
func (c *contender) endHolds(cause error) {
	for h := range c.holds {
		h.forget()
		h.cancel(cause)
		delete(c.holds, h)
	}
}

// expire says that validity is over, and ends the goroutines: there is nothing left to renew.
func (c *contender) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.expired:
	default:
		close(c.expired)
	}
	c.cancel()
}

func (c *contender) isExpired() bool {
	select {
	case <-c.expired:
		return true
	default:
		return c.lease.validUntil().Until() <= 0
	}
}

func (c *contender) isLost() bool { return c.lostError() != nil }

// lostError returns nil as long as the lock is held. The end of validity counts even before the keeper has
// noticed it.
func (c *contender) lostError() *LostError {
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	if lost == nil && c.lease.validUntil().Until() <= 0 {
		c.lose(Unrenewed, c.lease.lastError())
		return c.lostError()
	}
	return lost
}

// hold makes a context that lasts as long as both ctx and the lock.
func (c *contender) hold(ctx context.Context) context.Context {
	held, cancel := context.WithCancelCause(ctx)
	h := &holding{cancel: cancel}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		cancel(c.lost)
		return held
	}
	c.holds[h] = struct{}{}
	h.forget = context.AfterFunc(held, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.holds, h)
	})
	return held
}

// released ends the contexts handed out because the holder itself wants to be rid of the lock.
func (c *contender) released() {
	c.mu.Lock()
	c.endHolds(errUnlocked)
	c.mu.Unlock()
	c.expire()
}

// getOne returns the key that the i-th operation of a transaction got, if it is there.
func getOne(resp *clientv3.TxnResponse, i int) *mvccpb.KeyValue {
	if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}
