package model

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A breaker has read who holds the lock, and may ask that one to stop, once or more often.
type breaker struct {
	key   string // that makes it the holder
	nonce int64  // when it was written
	of    int    // the n of the slot; 0 if nobody has read anything
}

// breakMoves are what an operator does with etcdlockctl break. It may be gone after it has read.
func (w *World) breakMoves(a *moves) {
	for i, s := range w.slots {
		if key, _ := w.heldBy(s); key != nil && w.breaker.of == 0 {
			a.add(breaks, "@: an operator reads that it holds the lock", i, 0, func(w *World, i, _ int) {
				s := w.slots[i]
				key, _ := w.heldBy(s)
				w.breaker = breaker{string(key.Key), key.ModRevision, s.n}
			})
		}
	}
	if w.breaker.of > 0 && !w.isDone() {
		a.add(possible, "the operator asks whom it has read of to stop", -1, 0, (*World).asks)
		a.add(possible, "the operator goes away", -1, 0, func(w *World, _, _ int) { w.breaker = breaker{of: -1} })
	}
}

// heldBy returns the key that makes a place that of a holder, nil if it is not.
func (w *World) heldBy(s *slot) (key *mvccpb.KeyValue, own *mvccpb.KeyValue) {
	own = w.get(s.place.Key)
	switch {
	case own.CreateRevision == 0 || s.user < 0:
		return nil, own
	case s.place.Mode == mode.Shared:
		if w.get(lock).CreateRevision > 0 || w.ahead(own.CreateRevision, s.place) != "" || own.ModRevision != own.CreateRevision {
			return nil, own
		}
		return own, own
	}
	key = w.get(s.place.At(record.SeatOf(own.Value)).LockKey())
	isTurn := s.place.Mode.Slots() > 0 && record.SeatOf(own.Value) == 0
	if isTurn || key.ModRevision != own.ModRevision || key.CreateRevision == 0 {
		return nil, own
	}
	return key, own
}

// shows reports whether a refused transaction answers with a key.
func shows(resp *pb.TxnResponse, key *mvccpb.KeyValue) bool {
	found := wire.Got(resp, 0)
	if found == nil {
		return key.CreateRevision == 0
	}
	return string(found.Key) == string(key.Key) && kvOf(found) == kvOf(key)
}

// asks has an operator write over what made somebody the holder. Nobody but that one must be hit.
func (w *World) asks(_, _ int) {
	b := w.breaker
	before := w.get(b.key)
	i := slices.IndexFunc(w.slots, func(s *slot) bool { return s.n == b.of })
	isPlace := wire.IsPlace(lock, before)
	over := record.BrokenValue(&record.Break{By: "ops", Token: b.nonce}, string(before.Value), isPlace)
	req := wire.Break(b.key, over, b.nonce)
	resp := w.sendAs("Break", req) // without the comparison it fails where the key is gone
	now := w.get(b.key)
	switch hit := now.ModRevision != before.ModRevision; {
	case hit && before.ModRevision != b.nonce:
		w.errf("a break of %d has hit %s, written in %d", b.nonce, b.key, before.ModRevision)
	case hit && (string(now.Value) != over || now.Lease != before.Lease || now.CreateRevision != before.CreateRevision):
		w.errf("a break has left %s as %s", b.key, now)
	case hit && i >= 0 && w.slots[i].user >= 0:
		w.users[w.slots[i].user].broken = true
	case !hit && resp.Succeeded:
		w.errf("a break has written nothing")
	case !hit && !shows(resp, before):
		w.errf("a break that is refused does not show %s", b.key)
	}
}
