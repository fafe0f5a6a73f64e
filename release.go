package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/perclient"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// fenceLimit bounds what is done to clean up after the caller's context has ended.
const fenceLimit = time.Second

// Unlock releases the lock. Once is enough, however often Lock was called. The contexts of what was
// held are done before anybody else can get the lock. It goes to who is next in line at once, if
// that is known. The lease stays at hand for the next Lock, without keys, until it runs out.
//
// It fails with ErrNotHeld, and touches nobody's lock, if the lock is not held, also while Lock
// still waits: what ends that is its context. If the lock was lost, Unlock removes what is left of
// it and returns the *LostError. It returns at the latest when validity ends, or when ctx is done,
// and then with ErrUnconfirmed. A ctx that is done, or is about to be, is given a second.
func (l *Lock) Unlock(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	if c := l.current(); c != nil {
		return l.end(ctx, c)
	}
	return ErrNotHeld
}

// Close releases the lock if it is held, and leaves nothing in etcd, not even a lease (that of a
// session stays with it). A Lock call that waits fails with ErrClosed. The errors of Close are
// those of Unlock, but nothing to unlock is no error. The Lock can be used again.
func (l *Lock) Close(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	defer endIdle(l.client)
	defer l.interrupt()()
	ctx, done := withAllowance(ctx)
	defer done()
	if err := l.take(ctx, nil); err != nil {
		return unconfirmed(err)
	}
	defer l.give()
	way := (*contender).withdraw
	if l.session.isShared() {
		way = (*contender).release
	}
	var err error
	if c := l.current(); c != nil {
		err = l.finish(ctx, c, way)
	}
	if ls := l.atHand; ls != nil {
		l.atHand = nil
		l.session.owe(ls)
	}
	if !l.session.isShared() {
		err = errors.Join(err, unconfirmed(l.session.pay(ctx)))
	}
	return err
}

// end puts an end to a holding, unless that was done.
func (l *Lock) end(ctx context.Context, c *contender) error {
	ctx, done := withAllowance(ctx)
	defer done()
	switch err := l.take(ctx, c.over); {
	case err == ErrNotHeld:
		return err
	case err != nil:
		return c.unconfirmed(err)
	}
	defer l.give()
	if l.current() != c {
		return ErrNotHeld
	}
	return l.finish(ctx, c, (*contender).release)
}

// finish puts an end to the present holding, in one of two ways. The way reports whether the lease
// can serve again. It is called by whoever has the turn.
func (l *Lock) finish(ctx context.Context, c *contender, way func(*contender, context.Context) (bool, error)) error {
	defer l.forget(c)
	if lost := c.lostError(); lost != nil {
		l.drop(ctx, c)
		return lost
	}
	c.stop()
	c.released()
	c.ends.Store(true)
	late := !c.joins.areSettled()
	if late && !c.lease.IsShared() {
		way = (*contender).withdraw // nothing is created under a lease that is gone
	}
	reusable, err := way(c, ctx)
	switch {
	case c.lease.IsShared() && late:
		c.hauntLater()
	case c.lease.IsShared():
	case reusable:
		l.atHand = c.lease
	case errors.Is(err, ErrUnconfirmed):
		l.session.owe(c.lease)
	}
	if c.strays || !reusable {
		l.under = nil
	}
	return err
}

// withAllowance returns a context that is done when ctx is, but not within fenceLimit: what is to
// be given back is given back although the caller's time is over.
func withAllowance(ctx context.Context) (_ context.Context, done func()) {
	if ctx.Done() == nil {
		return ctx, func() {}
	}
	allowed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	begun := time.Now()
	later := time.AfterFunc(math.MaxInt64, func() { cancel(context.Cause(ctx)) })
	forget := context.AfterFunc(ctx, func() { later.Reset(fenceLimit - time.Since(begun)) })
	return allowed, func() {
		forget()
		later.Stop()
		cancel(nil)
	}
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

// drop removes what is left of a lock that was lost. Etcd may keep its lease for longer than it was
// valid: an outage, or a new leader, prolongs it.
func (l *Lock) drop(ctx context.Context, c *contender) {
	l.forget(c)
	l.under = nil // what is on its way to remove the place must not hit the next one
	c.released()
	c.stop()
	if c.lease.IsShared() && c.lease.Err() == nil {
		await(ctx, c.retreat())
	} else {
		c.fence(ctx)
	}
}

// release gives the lock to who is next in line, or back, with one transaction, and keeps the lease. A transaction that is applied late does no
// harm: it names our token and our place, and then neither ever comes again.
func (c *contender) release(ctx context.Context) (reusable bool, err error) {
	done, repeated, err := c.handOver(ctx)
	if err == nil && !done {
		var (
			resp *answer
			more bool
		)
		resp, more, err = c.removing(ctx, func(tail bool) *pb.TxnRequest { return wire.LeaveLost(c.place, tail) })
		// If the place is gone, an earlier try may have been applied, and its answer lost.
		if err == nil && !(repeated && wire.Got(resp, 1) == nil) {
			err = c.lostAtLast(resp)
		}
		repeated = repeated || more
	}
	c.strays = c.strays || repeated
	switch {
	case errors.Is(err, lease.ErrHistoryLost):
		return false, c.loss(HistoryLost, nil)
	case err != nil && !errors.Is(err, ErrNotHeld):
		if c.lease.IsShared() {
			c.retreat() // its lease will not run out
		}
		return false, c.unconfirmed(err)
	}
	return true, err
}

// handOver passes the lock on to the successor, if one is known, else gives it back. It is done unless the lock is not ours any more.
func (c *contender) handOver(ctx context.Context) (done, repeated bool, err error) {
	next, token := c.successor(), c.token.Load()
	if next == nil {
		resp, repeated, err := c.removing(ctx, func(tail bool) *pb.TxnRequest { return wire.Release(c.place, token, tail) })
		return err == nil && resp.Succeeded, repeated, err
	}
	// It may be denied: we may not write under that lease if it has keys that are none of our
	// business.
	resp, repeated, err := c.rewrite(ctx, wire.Pass(c.place, token, *next))
	if err != nil && !retry.MayStillDelete(err) || err == nil && resp.Succeeded {
		return err == nil, repeated, err
	}
	repeated = repeated || retry.IsNoSpace(err)
	c.noSuccessor()
	done, more, err := c.handOver(ctx)
	return done, repeated || more, err
}

// successor returns who joined next, nil if that is not known.
func (c *contender) successor() *wire.Successor {
	c.mu.Lock()
	defer c.mu.Unlock()
	if next := c.line.next; next != nil && next.Place != "" {
		return next
	}
	return nil
}

func (c *contender) noSuccessor() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.next = nil
}

// removing is rewrite with deletions, and that of the tail if it may name the place. Who may not
// touch the tail deletes the rest: TryLock takes a place of that kind without asking for the tail.
func (c *contender) removing(ctx context.Context, txn func(tail bool) *pb.TxnRequest) (resp *answer, repeated bool, err error) {
	tail := c.mayBeTail()
	resp, repeated, err = c.rewrite(ctx, txn(tail))
	if tail && retry.IsDenied(err) {
		return c.rewrite(ctx, txn(false))
	}
	return resp, repeated, err
}

// mayBeTail reports whether the tail may name the contender's place.
func (c *contender) mayBeTail() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.tail
}

// leave takes the place out of the line. If the lock was granted to it meanwhile, it is given on, not back to nobody. Absent says that the place
// was not there any more.
func (c *contender) leave(ctx context.Context) (absent bool, err error) {
	create, before := c.create(), c.lastBefore().link
	resp, _, err := c.rewrite(ctx, wire.Leave(c.place, create, c.mayBeTail(), before))
	if retry.MayStillDelete(err) {
		resp, _, err = c.removing(ctx, func(tail bool) *pb.TxnRequest { return wire.Leave(c.place, create, tail, "") })
	}
	if err != nil || resp.Succeeded {
		return false, err
	}
	state := wire.StateAt(resp, 0)
	if done, err := c.removeAs(ctx, state); done || err != nil {
		return state.Place == nil, err
	}
	_, err = c.takeBack(ctx)
	return false, err
}

// removeAs removes a place that is not as it was created: as a holder does if it was granted the lock, else as it is. It is done unless something
// has come between.
func (c *contender) removeAs(ctx context.Context, state wire.State) (done bool, err error) {
	own := state.Place
	switch created := c.create(); {
	case own == nil, created > 0 && own.CreateRevision != created && !c.strays:
		return true, nil // gone, or the next one's of that name: after a stray it has another
	case state.Holds():
		c.win(own.CreateRevision, own.ModRevision)
		done, _, err = c.handOver(ctx)
		return done, err
	}
	resp, repeated, err := c.removing(ctx, func(tail bool) *pb.TxnRequest { return wire.Remove(c.place, own.ModRevision, tail) })
	return err == nil && resp.Succeeded && !repeated, err
}

// giveUp takes back the place of a contender that waits no more, also when ctx has ended, and the lock if it was granted meanwhile. What
// cannot be taken back in time runs out, or the session takes it back later.
func (c *contender) giveUp(ctx context.Context) {
	if c.lease.IsShared() {
		await(context.WithoutCancel(ctx), c.retreat())
		return
	}
	c.stop()
	if c.create() > 0 && !perclient.IsClosed(c.lease.Client()) {
		// The lease goes in any case; to leave first gives on what was granted meanwhile.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit/2)
		c.leave(ctx)
		cancel()
	}
	c.fence(ctx)
}

// await waits for something for as long as the caller's context, which may have ended, lets us clean up.
func await(ctx context.Context, done <-chan struct{}) {
	limit := time.NewTimer(fenceLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// lastBefore is what the contender waited for.
func (c *contender) lastBefore() obstacle {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.ahead
}

// fence revokes the lease of a contender that gives up, also when ctx has ended, and thereby takes back its place,
// and the lock if it was granted meanwhile. What cannot be revoked runs out.
func (c *contender) fence(ctx context.Context) {
	if perclient.IsClosed(c.lease.Client()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit)
	defer cancel()
	if err := lease.Revoke(ctx, c.lease.Client(), c.lease.ID(), c.lease.First()); err != nil {
		c.owner.session.owe(c.lease)
		c.say(slog.LevelWarn, "the place in line stays until its lease runs out", "key", c.key, "cause", err)
	}
	c.removeDetached(ctx)
}

// removeDetached removes a place that an operator has written without our lease, which does not
// take it along. It is where ours was, and nobody else has a place of that name.
func (c *contender) removeDetached(ctx context.Context) {
	if c.isOverwritten() {
		c.removeWithoutLease(ctx)
	}
}

// removeWithoutLease removes the place if it is not under our lease.
func (c *contender) removeWithoutLease(ctx context.Context) {
	resp, err := c.lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(c.place.Key))
	if err == nil {
		if own := wire.Got(resp, 0); own != nil && own.Lease != int64(c.lease.ID()) {
			_, _, err = c.rewrite(ctx, wire.Remove(c.place, own.ModRevision, false))
		}
	}
	if err != nil {
		c.say(slog.LevelWarn, "a place in line that was overwritten may stay", "key", c.key, "place", c.place.Key, "cause", err)
	}
}

// isOverwritten reports whether somebody else may have written the place, or made another of its
// name.
func (c *contender) isOverwritten() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.doom == errOverwritten || c.line.doom == errDeleted || c.lost != nil && c.lost.Reason == PlaceLost
}

// withdraw gives the lock to who is next in line, or back by revoking the lease, which goes in any case. A read before it tells whether it was still ours.
func (c *contender) withdraw(ctx context.Context) (reusable bool, err error) {
	ctx, cancel := c.lease.ToEnd(ctx, fenceLimit)
	defer cancel()
	var lost error
	if c.successor() != nil {
		_, lost = c.release(ctx)
	} else {
		switch resp, err := c.lease.Read(ctx, c.stateRead()); {
		case errors.Is(err, lease.ErrHistoryLost):
			lost = c.loss(HistoryLost, nil)
		case err == nil:
			lost = c.lostAtLast(resp)
		}
	}
	if err := lease.Revoke(ctx, c.lease.Client(), c.lease.ID(), c.lease.First()); err != nil {
		return false, c.unconfirmed(err)
	}
	if errors.Is(lost, ErrUnconfirmed) { // the revocation says more
		lost = nil
	}
	if taken := (*LostError)(nil); errors.As(lost, &taken) && taken.Reason == PlaceLost {
		c.removeWithoutLease(ctx)
	}
	return false, lost
}

func (c *contender) unconfirmed(err error) error {
	return fmt.Errorf("lock %q: %w: %w", c.key, ErrUnconfirmed, err)
}

// lostAtLast is the loss, if any, that a read at the very end shows.
func (c *contender) lostAtLast(resp *answer) error {
	if reason := c.whatIsLost(wire.StateAt(resp, 0)); reason != 0 {
		return c.loss(reason, nil)
	}
	return nil
}
