package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Unlock releases the lock. Once is enough, however often Lock was called. The contexts that Lock returned are done
// before anybody else can get the lock. The lease stays at hand for the next Lock, without keys, until it runs out.
//
// It fails with ErrNotHeld, and touches nobody's lock, if the lock is not held, also while Lock still waits: what
// ends that is its context. If the lock was lost, Unlock removes what is left of it and returns the *LostError. It
// returns at the latest when validity ends, or when ctx is done, and then with ErrUnconfirmed.
func (l *Lock) Unlock(ctx context.Context) error { return l.end(ctx, (*contender).release) }

// Close releases the lock if it is held, and leaves nothing in etcd, not even a lease. Its errors are those of
// Unlock, but nothing to unlock is no error. The Lock can be used again.
func (l *Lock) Close(ctx context.Context) error {
	err := l.end(ctx, (*contender).withdraw)
	if err != ErrNotHeld {
		return err
	}
	if err := l.take(ctx, nil); err != nil {
		return err
	}
	defer l.give()
	if l.atHand == nil {
		return nil
	}
	ls := l.atHand
	l.atHand = nil
	return revoke(ctx, l.client, ls.id, ls.first)
}

// end puts an end to the present holding, in one of two ways. The way reports whether the lease can serve again.
func (l *Lock) end(ctx context.Context, way func(*contender, context.Context) (bool, error)) error {
	c := l.current()
	if c == nil {
		return ErrNotHeld
	}
	if err := l.take(ctx, c.over); err != nil {
		return err
	}
	defer l.give()
	if l.current() != c {
		return ErrNotHeld
	}
	defer l.forget(c)
	if lost := c.lostError(); lost != nil {
		l.drop(ctx, c)
		return lost
	}
	c.stop()
	ctx, cancel := context.WithDeadlineCause(ctx, time.Now().Add(c.lease.validUntil().Until()), errors.New("validity has ended"))
	defer cancel()
	c.released()
	reusable, err := way(c, ctx)
	if reusable {
		l.atHand = c.lease
	}
	return err
}

// forget makes c history.
func (l *Lock) forget(c *contender) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == c {
		l.at = nil
		close(c.over)
	}
}

// drop removes what is left of a lock that was lost, as long as that can matter to anybody.
func (l *Lock) drop(ctx context.Context, c *contender) {
	l.forget(c)
	c.released()
	c.stop()
	if c.lease.validUntil().Until() > 0 {
		c.fence(ctx)
	}
}

// release gives the lock back with one transaction and keeps the lease. A transaction that is applied late does no
// harm: it names our token and our place, and then neither ever comes again.
func (c *contender) release(ctx context.Context) (reusable bool, err error) {
	ours := clientv3.Compare(clientv3.ModRevision(c.key), "=", c.token.Load())
	leave := clientv3.OpDelete(c.place)
	resp, repeated, err := c.rewrite(ctx, []clientv3.Cmp{ours}, []clientv3.Op{clientv3.OpDelete(c.key), leave}, nil)
	if err == nil && !resp.Succeeded {
		var more bool
		resp, more, err = c.rewrite(ctx, nil, append(c.state(), leave), nil)
		if err == nil && !(repeated && getOne(resp, 1) == nil) { // else an earlier try was applied, and its answer lost
			err = c.lostAtLast(resp)
		}
		repeated = repeated || more
	}
	// Etcd keeps a name for every key that ever was, until it compacts, and goes through all below K/ when somebody
	// joins: so the next place takes the same name, unless a late write could hit it.
	if c.strays || repeated {
		c.lease.places++
	}
	switch {
	case errors.Is(err, errHistoryLost):
		return false, c.loss(HistoryLost, nil)
	case err != nil && !errors.Is(err, ErrNotHeld):
		return false, c.unconfirmed(err)
	}
	return true, err
}

// withdraw gives the lock back by revoking the lease. A read before it tells whether it was still ours.
func (c *contender) withdraw(ctx context.Context) (reusable bool, err error) {
	var lost error
	switch resp, err := c.lease.read(ctx, c.state()...); {
	case errors.Is(err, errHistoryLost):
		lost = c.loss(HistoryLost, nil)
	case err == nil:
		lost = c.lostAtLast(resp)
	}
	if err := revoke(ctx, c.lease.client, c.lease.id, c.lease.first); err != nil {
		return false, c.unconfirmed(err)
	}
	return false, lost
}

func (c *contender) unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", c.key, ErrUnconfirmed, err)
}

// lostAtLast is the loss, if any, that a read at the very end shows.
func (c *contender) lostAtLast(resp *clientv3.TxnResponse) error {
	if reason := c.whatIsLost(getOne(resp, 0), getOne(resp, 1)); reason != 0 {
		return c.loss(reason, nil)
	}
	return nil
}
