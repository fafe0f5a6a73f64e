//go:build linux

package faults

import (
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keyDeleted is what a holder says whose key somebody has deleted.
const keyDeleted = "deleted from outside"

func keyFaults() []Fault {
	return []Fault{
		{Name: "key deleted", anyone: true, what: "the key", outcome: loses, code: 2, says: keyDeleted, hit: deletesKey},
		{Name: "key overwritten", what: "the key", outcome: loses, code: 2, says: "overwritten from outside", settled: true, lasts: ttls(0.6), hit: putsKey},
		{Name: "key deleted, and put while it was free", what: "the key", outcome: loses, code: 2, says: "from outside", settled: true, lasts: ttls(0.6), hit: func(t *trial) func() {
			deletesKey(t)
			return putsKey(t)
		}},
		{Name: "place deleted", what: "the key", outcome: loses, forced: true, code: 2, says: "its place in line was deleted", hit: func(t *trial) func() { return t.deletesPlace(t.holder) }},
		{Name: "lease revoked", anyone: true, what: "the key", outcome: loses, forced: true, code: 2, says: "lost: its ", hit: func(t *trial) func() { return t.revokes(t.holder) }},
		{Name: "a waiter's place deleted", what: "a waiter", waiters: true, later: true, outcome: keeps, hit: func(t *trial) func() { return t.deletesPlace(t.waiters[0]) }},
		{Name: "a waiter's lease revoked", what: "a waiter", waiters: true, later: true, outcome: keeps, hit: func(t *trial) func() { return t.revokes(t.waiters[0]) }},
		{Name: "compaction", what: "the history", need: need{size: 1, alone: true}, outcome: keeps, hit: func(t *trial) func() {
			resp, err := t.client.Get(t.ctx, t.key)
			t.require(err)
			_, err = t.client.Compact(t.ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
			t.require(err)
			return nil
		}},
	}
}

func (t *trial) deletesPlace(p *player) func() {
	if s, ok := t.standingOf(p); ok {
		_, err := t.client.Delete(t.ctx, s.key)
		t.operate(err)
	}
	return nil
}

func (t *trial) revokes(p *player) func() {
	if s, ok := t.standingOf(p); ok {
		_, err := t.client.Revoke(t.ctx, s.lease)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) { // it has run out since
			t.operate(err)
		}
	}
	return nil
}

// deletesKey is an operator who wants the holder to stop.
func deletesKey(t *trial) func() {
	if !t.spec.Locker.ours {
		return t.deletesPlace(t.holder) // there is no other key
	}
	_, err := t.client.Delete(t.ctx, t.key)
	t.operate(err)
	return nil
}

// putsKey is an operator who keeps all others out, until he takes his key away.
func putsKey(t *trial) func() {
	_, err := t.client.Put(t.ctx, t.key, "an operator")
	t.operate(err)
	return func() {
		_, err := t.client.Delete(t.ctx, t.key)
		t.require(err)
	}
}

// operate is about what an operator has tried, who cannot do much while etcd does not answer.
func (t *trial) operate(err error) {
	if _, alone := t.alone(); alone {
		t.require(err)
	}
}
