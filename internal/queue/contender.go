// Package queue runs machines of package protocol against etcd: it sends the transactions that they
// ask for, opens their watches, and tells them of answers, events and time.
//
// Lock order: driver.mu before everything of the lease, of its watches and of the User.
package queue

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A User is told what becomes of a contender. Its methods must not block, nor call the contender.
type User interface {
	Waiting()                              // behind somebody else
	Acquired()                             // the lock
	Lost(reason message.Reason, why error) // or about to be
	Expired()                              // another contender may have the lock
}

// Options are what a contender is made with.
type Options struct {
	Place     wire.Place
	Lease     *lease.Lease
	Timing    lease.Timing
	Log       *slog.Logger
	OnRenew   func() // or nil
	Slot      int    // to begin with, of a semaphore
	Try, Lone bool
	Removes   bool // what is at the place, as no contender stands there
}

// A Contender is one place in line, from the request to join until nothing of it is left. The
// caller's goroutine drives it while it acquires and releases; what has to be done otherwise is
// done in the background.
type Contender struct{ member }

// New returns a contender that has not begun. It is a member of its lease until it leaves.
func New(o Options, user User) *Contender {
	config := translate.Config(o.Place)
	config.Try, config.Lone, config.Slot, config.Shared = o.Try, o.Lone, o.Slot, o.Lease.IsShared() || o.Removes
	c := &Contender{}
	d := &c.member.driver
	d.Options, d.user, d.self = o, user, c
	d.m, d.wake = protocol.New(config), make(chan struct{}, 1)
	d.sender.Place, d.sender.Lease, d.sender.Log, d.sender.Settled = &d.Place, o.Lease, o.Log, d.settled
	return c
}

// Acquire waits for the lock. Answered is called when etcd has answered for the first time. The
// error is an *EndError; then Leave has to be called.
func (c *Contender) Acquire(ctx context.Context, answered func()) error {
	c.beginAcquire()
	c.driveOn(ctx, func() bool {
		if c.m.Created() > 0 && answered != nil {
			answered()
			answered = nil
			if c.m.Token == 0 { // otherwise confirm does it
				c.Lease.DeferCare(c, c.ValidUntil().Until())
			}
		}
		return c.isDecidedLocked()
	})
	return c.acquired(ctx)
}

func (c *Contender) beginAcquire() {
	if err := c.Lease.Add(c, c.Timing, c.Log); err != nil {
		c.OnLeaseLost(err)
	}
	c.begin(message.Acquire{})
}

// isDecidedLocked reports whether the lock was acquired, or will not be. The caller has mu.
func (c *Contender) isDecidedLocked() bool { return c.m.Token != 0 || c.end != message.NotEnded }

// acquired returns what came of an Acquire.
func (c *Contender) acquired(ctx context.Context) error {
	c.mu.Lock()
	token, end, err := c.m.Token, c.end, c.endErr
	c.mu.Unlock()
	switch {
	case end != message.NotEnded:
	case token != 0: // it may be lost already
		return c.confirm(ctx)
	default: // ctx is done
		c.step(message.Cancel{})
		return &EndError{message.Cancelled, context.Cause(ctx)}
	}
	if leaseErr := c.Lease.Err(); end >= message.NoLease && leaseErr != nil {
		err = leaseErr
	}
	return &EndError{end, err}
}

// confirm renews the lease of a lock that was acquired with little validity left, as after an
// outage: nothing runs under the lock yet that would have to be stopped, and it is not lost as long
// as etcd has the lease.
func (c *Contender) confirm(ctx context.Context) error {
	if c.Lease.ValidUntil().Until() < c.Timing.Grace+2*c.Lease.First() {
		if err := c.Lease.RenewNow(ctx, c.Place.Lock, c); err != nil {
			end := message.Uncertain
			switch {
			case c.Lease.Err() != nil:
				end = message.NoLease
			case retry.IsRefused(err):
				end = message.Failed
			}
			return &EndError{end, err}
		}
	}
	c.confirmed.Store(true)
	c.user.Acquired()
	left := c.ValidUntil().Until()
	c.Lease.DeferCare(c, left)
	// Time has stood still for us, and the watchdog may have passed us over.
	if left <= c.Timing.Grace {
		c.Lease.Ring()
	}
	c.Lease.SetProbe(c.Place.Lock)
	if err := c.Lease.Err(); err != nil {
		c.OnLeaseLost(err)
	}
	return nil
}

// Token returns the fencing token, 0 before there is one.
func (c *Contender) Token() int64 { return c.token.Load() }

// Busy returns what was found there, after an Acquire that ended with message.Busy, and Oldest the
// oldest key in line, after one that ended with message.OtherKind.
func (c *Contender) Busy() wire.Busy          { return c.sender.Busy() }
func (c *Contender) Oldest() *mvccpb.KeyValue { return c.sender.Oldest() }

// Seat returns which slot of a semaphore was granted with the token: 1 is slot 0. It returns 0 if
// the lock has no slots.
func (c *Contender) Seat() int { return int(c.seat.Load()) }

// Created returns the revision that created the place, 0 if that is not known.
func (c *Contender) Created() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Created()
}

// Strays reports whether the name of the place must not be used again, nor the lease if it is not
// shared.
func (c *Contender) Strays() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.Strays() || c.met.Load()
}

// KnowsNext reports whether it is known who is next.
func (c *Contender) KnowsNext() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.m.Successor()
	return ok
}

// Settled reports whether all requests to join have been answered.
func (c *Contender) Settled() bool { return c.sender.IsSettled() }

// User returns the User that is told what becomes of the contender.
func (c *Contender) User() User { return c.user }

// Released says how a release has ended.
type Released struct {
	Confirmed bool
	Abandoned bool           // by Abandon, which came first: nothing was asked
	Overtaken bool           // by the revocation of the lease, which may be why it found nothing
	Reason    message.Reason // the lock had been lost before
	Cause     error          // of that, if it is known
	Err       error          // why it is not confirmed
}

// Release passes the lock to the successor, or gives it back, with one transaction. It does not go
// on when validity has ended, or ctx is done: a lease that is not shared is not renewed any more.
// What is left then goes with the lease, or, if that is shared, is removed in the background.
func (c *Contender) Release(ctx context.Context) Released {
	c.beginRelease()
	return c.endRelease(ctx)
}

func (c *Contender) beginRelease() {
	c.Lease.Use() // what is revoked is not given back
	c.Lease.Releases.Use()
	c.Lease.Remove(c)
	c.sender.Ends.Store(true)
	c.begin(message.Release{})
}

func (c *Contender) endRelease(ctx context.Context) Released {
	defer c.Lease.Done()
	defer c.Lease.Releases.Done()
	c.driveOn(ctx, func() bool { return c.released != nil || c.gone })
	c.sender.Ends.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released == nil {
		return Released{Err: cmp.Or(context.Cause(ctx), c.err, lease.ErrGone)}
	}
	c.released.Abandoned, c.released.Overtaken = c.abandoned, c.Lease.Overtaken.Load()
	c.released.Err = cmp.Or(c.err, context.Cause(ctx), lease.ErrGone)
	return *c.released
}

// Leave removes what there is of a contender until ctx is done. If the lease is shared, that goes
// on in the background.
func (c *Contender) Leave(ctx context.Context) {
	c.step(message.Cancel{})
	c.drive(ctx, message.Release{}, func() bool { return c.gone || c.m.State == standing.Unconfirmed })
	c.Lease.Remove(c)
}

// Abandon ends a contender whose lease is revoked, or has ended. A release that is under way goes
// on.
func (c *Contender) Abandon() {
	c.mu.Lock()
	c.abandoned = c.m.State < standing.Leaving
	c.stepLocked(message.LeaseLost{})
	c.stepLocked(message.Cancel{})
	c.stepLocked(message.Release{})
	c.mu.Unlock()
	c.stepped()
	c.Lease.Remove(c)
}

// Compare reads K and the place, and returns how the lock was lost, if it was, as if that were a
// release.
func (c *Contender) Compare(ctx context.Context) (r Released) {
	resp, err := c.Lease.ReadUntil(ctx, lease.IsFinal, wire.StateRead(wire.StateOps(c.Place.At(c.Seat()).LockKey(), c.Place.Key, "")))
	switch {
	case errors.Is(err, lease.ErrHistoryLost):
		return Released{Confirmed: true, Reason: message.HistoryLost}
	case err != nil:
		return Released{Err: err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := translate.KeysOf(resp, 0)
	r = Released{Confirmed: true, Reason: c.m.Position().Compare(keys, c.m.Token)}
	r.Cause = translate.Broken(r.Reason, c.m.Position().Overwriting(keys))
	return r
}

// IsOverwritten reports whether somebody else may have written the place, or made another of its
// name.
func (c *Contender) IsOverwritten() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return isOverwrittenLocked(&c.driver)
}

// RemoveWithoutLease removes the place if it is not under our lease. In another history than the
// lease's it is not there.
func (c *Contender) RemoveWithoutLease(ctx context.Context) error {
	for {
		resp, err := c.Lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(c.Place.Key))
		if errors.Is(err, lease.ErrHistoryLost) {
			return nil
		}
		if err != nil {
			return err
		}
		own := wire.Got(resp, 0)
		if own == nil || own.Lease == int64(c.Place.Lease) {
			return nil
		}
		resp, _, err = c.sender.Rewrite(ctx, message.Request{Name: message.Remove, Rev: own.ModRevision})
		if err != nil || resp.Succeeded {
			return err
		}
	}
}

// ForgetNext makes the contender one that does not know who is next. It is for tests.
func (c *Contender) ForgetNext() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.Position().ForgetNext()
}
