// Package debts remembers what could not be removed from etcd, and removes it when etcd answers.
//
// Lock order: payer, then mu. Nothing else is locked under mu.
package debts

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// Limit is how long it is tried to remove something for somebody who has not asked for that, or
// whose time is over.
const Limit = time.Second

// Allow returns a context that is done when ctx is, but not within Limit: what is to be given back
// is given back although the caller's time is over.
func Allow(ctx context.Context) (_ context.Context, done func()) {
	if ctx.Done() == nil {
		return ctx, func() {}
	}
	allowed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	begun := time.Now()
	forget := context.AfterFunc(ctx, func() {
		if retry.Sleep(allowed, Limit-time.Since(begun)) {
			cancel(context.Cause(ctx))
		}
	})
	return allowed, func() {
		forget()
		cancel(nil)
	}
}

// most is how many debts are remembered that etcd pays itself some time.
const most = 16

// A debt is something that is to be removed.
type debt struct {
	remove func(ctx context.Context) error
	until  boottime.Instant // how long Pay tries at most; 0: not for long, the lease has no keys
	ends   boottime.Instant // when it has gone by itself; 0: it does not, and keeps others out
}

// Debts are what one session owes.
type Debts struct {
	client *clientv3.Client
	payer  chan struct{} // holds one token for who pays

	mu        sync.Mutex
	owed      []debt
	forgotten boottime.Instant // when the last of what was forgotten goes by itself
	pays      bool             // in the background
}

// New returns what is owed at the beginning, which is nothing.
func New(client *clientv3.Client) *Debts {
	return &Debts{client: client, payer: make(chan struct{}, 1)}
}

// OweLease takes note of a lease that is to be revoked: at the next occasion, and if none comes it
// runs out.
func (d *Debts) OweLease(l *lease.Lease) {
	until := l.ValidUntil()
	// An election prolongs it.
	d.owe(debt{remove: d.revoke(l.ID(), l.First()), until: until, ends: until.Add(l.TTL())})
}

// OweGrant is OweLease for a lease without keys, of which it is not known whether etcd has it.
func (d *Debts) OweGrant(id clientv3.LeaseID, ttl time.Duration) {
	d.owe(debt{remove: d.revoke(id, Limit), ends: boottime.Now().Add(2 * ttl)})
}

func (d *Debts) revoke(id clientv3.LeaseID, first time.Duration) func(context.Context) error {
	return func(ctx context.Context) error { return lease.Revoke(ctx, d.client, id, first) }
}

// OweStaying takes note of something that does not go with a lease, and keeps others out. It is
// tried to remove it in the background until that is done, or the client is closed.
func (d *Debts) OweStaying(remove func(ctx context.Context) error) { d.owe(debt{remove: remove}) }

func (d *Debts) owe(one debt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed = append(d.owed, one)
	if len(d.owed) > most {
		d.forgetLocked()
	}
	if one.stays() && !d.pays {
		d.pays = true
		go d.payOn()
	}
}

func (d debt) stays() bool { return d.ends == 0 }

// forgetLocked forgets what was owed first and has no keys, else what was and goes by itself.
func (d *Debts) forgetLocked() {
	oldest := slices.IndexFunc(d.owed, func(one debt) bool { return !one.stays() && one.until == 0 })
	if oldest < 0 {
		oldest = slices.IndexFunc(d.owed, func(one debt) bool { return !one.stays() })
	}
	if oldest >= 0 {
		d.forgotten = max(d.forgotten, d.owed[oldest].ends)
		d.owed = slices.Delete(d.owed, oldest, oldest+1)
	}
}

// payOn pays in the background until nothing is left that stays.
func (d *Debts) payOn() {
	ctx := d.client.Ctx()
	for pause := retry.PauseMin; retry.Sleep(ctx, pause); pause = min(2*pause, retry.PauseRefused) {
		d.PayNow(ctx)
		d.mu.Lock()
		d.pays = slices.ContainsFunc(d.owed, debt.stays)
		paid := !d.pays
		d.mu.Unlock()
		if paid { // what somebody else fails to pay is owed again, which begins anew
			return
		}
	}
}

// PayNow is Pay for somebody who has not asked for that.
func (d *Debts) PayNow(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	return d.Pay(ctx)
}

// errForgotten says that there was too much to remember.
var errForgotten = errors.New("a lease that is to be revoked was forgotten, and runs out")

// Pay pays what is owed, until ctx is done, or all leases with keys are over; for Limit at least.
// What cannot be paid stays owed until it goes by itself.
func (d *Debts) Pay(ctx context.Context) error {
	select {
	case d.payer <- struct{}{}:
		defer func() { <-d.payer }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	owed, forgotten := d.owed, d.forgotten
	d.owed = nil
	d.mu.Unlock()
	var last boottime.Instant
	for _, one := range owed {
		last = max(last, one.until)
	}
	ctx, cancel := lease.ToEnd(ctx, last, Limit)
	defer cancel()
	err := d.payAll(ctx, owed)
	if err == nil && forgotten.Until() > 0 {
		err = errForgotten
	}
	return err
}

// payAll pays some debts, several at a time: one that is not answered does not hold the others up.
func (d *Debts) payAll(ctx context.Context, owed []debt) error {
	left := make(chan debt, len(owed))
	for _, one := range owed {
		left <- one
	}
	close(left)
	failures := make(chan error, len(owed))
	var all sync.WaitGroup
	for range min(len(owed), most) {
		all.Go(func() {
			for one := range left {
				failed := one.remove(ctx)
				if failed == nil {
					continue
				}
				failures <- failed
				if one.stays() || one.ends.Until() > 0 {
					d.owe(one)
				}
			}
		})
	}
	all.Wait()
	close(failures)
	return <-failures
}
