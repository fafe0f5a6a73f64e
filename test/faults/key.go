//go:build linux

package faults

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/admin"
)

// keyDeleted is what a holder says whose key somebody has deleted.
const keyDeleted = "deleted from outside"

func keyFaults() []Fault {
	return []Fault{
		{Name: "key deleted", anyone: true, what: "the key", outcome: loses, code: 2, says: keyDeleted, hit: deletesKey},
		{Name: "key overwritten", what: "the key", outcome: loses, code: 2, says: "overwritten from outside", byHand: true, settled: true, lasts: ttls(0.6), hit: putsKey},
		{Name: "key deleted, and put while it was free", what: "the key", outcome: loses, code: 2, says: "from outside", byHand: true, settled: true, lasts: ttls(0.6), hit: func(t *trial) func() {
			deletesKey(t)
			return putsKey(t)
		}},
		{Name: "broken", what: "the key", outcome: loses, code: 2, says: `was broken by ops@faults: "a trial"`, hit: breaksLock},
		{Name: "place deleted", what: "the key", outcome: loses, forced: true, code: 2, says: "its place in line was deleted", hit: func(t *trial) func() { return t.deletesPlace(t.holder) }},
		{Name: "lease revoked", anyone: true, what: "the key", outcome: loses, forced: true, code: 2, says: "lost: its ", hit: func(t *trial) func() { return t.revokes(t.holder) }},
		{Name: "a waiter's place deleted", what: "a waiter", waiters: true, later: true, outcome: keeps, hit: func(t *trial) func() { return t.deletesPlace(t.waiters[0]) }},
		{Name: "a waiter's lease revoked", what: "a waiter", waiters: true, later: true, outcome: keeps, hit: func(t *trial) func() { return t.revokes(t.waiters[0]) }},
		{Name: "compaction", what: "the history", need: need{size: 1, alone: true}, outcome: keeps, hit: func(t *trial) func() {
			t.operate(func(ctx context.Context) error {
				_, err := t.client.Compact(ctx, t.line.revision(), clientv3.WithCompactPhysical())
				if errors.Is(err, rpctypes.ErrCompacted) { // by a try that was not answered
					return nil
				}
				return err
			})
			return nil
		}},
	}
}

func (t *trial) deletesPlace(p *player) func() {
	if s, ok := t.standingOf(p); ok {
		t.operate(func(ctx context.Context) error { return t.remove(ctx, s.key) })
	}
	return nil
}

func (t *trial) revokes(p *player) func() {
	if s, ok := t.standingOf(p); ok {
		t.operate(func(ctx context.Context) error {
			_, err := t.client.Revoke(ctx, s.lease)
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return nil // it has run out since
			}
			return err
		})
	}
	return nil
}

// deletesKey is an operator who wants the holder to stop.
func deletesKey(t *trial) func() {
	if !t.spec.Locker.ours {
		return t.deletesPlace(t.holder) // there is no other key
	}
	t.operate(func(ctx context.Context) error { return t.remove(ctx, t.struck().key) })
	return nil
}

// breaksLock is an operator who asks the holder to stop, unless another one has the lock by then.
func breaksLock(t *trial) func() {
	t.operate(func(ctx context.Context) error {
		all, err := admin.Targets(ctx, t.client, t.struck().key)
		for _, target := range all {
			if target.ID == t.holder.name {
				_, err = admin.Break(ctx, t.client, target.Lock, target.Token, admin.Request{By: "ops", Host: "faults", Reason: "a trial"})
			}
		}
		if errors.Is(err, admin.ErrNotHolder) {
			return nil
		}
		return err
	})
	return nil
}

// putsKey is an operator who keeps all others out, until he takes his key away.
func putsKey(t *trial) func() {
	t.operate(func(ctx context.Context) error {
		_, err := t.client.Put(ctx, t.struck().key, "an operator")
		return err
	})
	return func() {
		if !t.await(settleWithin, func() bool {
			return t.asking(func(ctx context.Context) error { return t.remove(ctx, t.struck().key) }) == nil
		}) {
			t.problem("the operator's key could not be taken away")
		}
	}
}

func (t *trial) remove(ctx context.Context, key string) error {
	_, err := t.client.Delete(ctx, key)
	return err
}

// operate does what an operator does, who in a pair of faults can find that etcd does not answer.
func (t *trial) operate(do func(context.Context) error) {
	if _, alone := t.alone(); alone {
		t.require(t.askingFor(settleWithin, do)) // once: a second time it could hit the next holder
		return
	}
	t.asking(do)
}

// asking bounds a request to etcd.
func (t *trial) asking(do func(context.Context) error) error { return t.askingFor(requestLimit, do) }

func (t *trial) askingFor(limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.ctx, limit)
	defer cancel()
	return do(ctx)
}
