// Package debts remembers what could not be removed from etcd, and removes it when etcd answers.
package debts

import (
	"context"
	"math"
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
	later := time.AfterFunc(math.MaxInt64, func() { cancel(context.Cause(ctx)) })
	forget := context.AfterFunc(ctx, func() { later.Reset(Limit - time.Since(begun)) })
	return allowed, func() {
		forget()
		later.Stop()
		cancel(nil)
	}
}

// most is how many debts are remembered that etcd pays itself some time.
const most = 16

// A debt is something that is to be removed.
type debt struct {
	remove func(ctx context.Context) error
	until  boottime.Instant // when it is useless to try, at the latest; 0: it is soon
	stays  bool             // it does not go with a lease, and keeps others out
}

// Debts are what one session owes. They are paid one after another.
type Debts struct {
	client *clientv3.Client
	payer  chan struct{} // holds one token for who pays

	mu   sync.Mutex
	owed []debt
	pays bool // in the background
}

// New returns what is owed at the beginning, which is nothing.
func New(client *clientv3.Client) *Debts {
	return &Debts{client: client, payer: make(chan struct{}, 1)}
}

// OweLease takes note of a lease that is to be revoked: at the next occasion, and if none comes it
// runs out.
func (d *Debts) OweLease(l *lease.Lease) { d.OweGrant(l.ID(), l.First(), l.ValidUntil()) }

// OweGrant is OweLease for a lease of which it is not known whether etcd has it. First is how long
// a first try may take, and until when the lease will be over, 0 if that is not known.
func (d *Debts) OweGrant(id clientv3.LeaseID, first time.Duration, until boottime.Instant) {
	d.owe(debt{until: until, remove: func(ctx context.Context) error { return lease.Revoke(ctx, d.client, id, first) }})
}

// OweStaying takes note of something that does not go with a lease, and keeps others out. It is
// tried to remove it in the background until that is done, or the client is closed.
func (d *Debts) OweStaying(remove func(ctx context.Context) error) {
	d.owe(debt{remove: remove, stays: true})
}

func (d *Debts) owe(one debt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owed = append(d.owed, one)
	if len(d.owed) > most {
		if oldest := slices.IndexFunc(d.owed, func(one debt) bool { return !one.stays }); oldest >= 0 {
			d.owed = slices.Delete(d.owed, oldest, oldest+1)
		}
	}
	if one.stays && !d.pays {
		d.pays = true
		go d.payOn()
	}
}

// payOn pays in the background until nothing is left that stays.
func (d *Debts) payOn() {
	ctx := d.client.Ctx()
	for pause := retry.PauseMin; retry.Sleep(ctx, pause); pause = min(2*pause, retry.PauseRefused) {
		d.PayNow(ctx)
		d.mu.Lock()
		d.pays = slices.ContainsFunc(d.owed, func(one debt) bool { return one.stays })
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

// Pay pays what is owed, until ctx is done, or the validity of each lease ends; for Limit at least.
// What cannot be paid stays owed.
func (d *Debts) Pay(ctx context.Context) (err error) {
	select {
	case d.payer <- struct{}{}:
		defer func() { <-d.payer }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	d.mu.Lock()
	owed := d.owed
	d.owed = nil
	d.mu.Unlock()
	for _, one := range owed {
		limited, cancel := lease.ToEnd(ctx, one.until, Limit)
		if failed := one.remove(limited); failed != nil {
			d.owe(one)
			err = failed
		}
		cancel()
	}
	return err
}
