package etcdlock_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
)

// slotKey returns the key of the slot that is held.
func slotKey(key string, held grip) string {
	return fmt.Sprintf("%s/=%d#%d", key, held.Mode(), held.Slot())
}

// TestSlotsAndForced: an operator's hand ends the holding that it touches, and no other. Nobody has
// the slot before Unlock, unless the loss is forced.
func TestSlotsAndForced(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	type hand func(slot string, at place) error
	del := func(key string) error { _, err := client.Delete(ctx, key); return err }
	put := func(key string, opts ...clientv3.OpOption) error {
		_, err := client.Put(ctx, key, "by hand", opts...)
		return err
	}
	for name, one := range map[string]struct {
		hand   hand
		reason etcdlock.Reason
		stays  bool // what was put on the slot, until it is deleted
	}{
		"slot deleted":                      {func(slot string, _ place) error { return del(slot) }, etcdlock.SlotLost, false},
		"slot overwritten":                  {func(slot string, _ place) error { return put(slot, clientv3.WithIgnoreLease()) }, etcdlock.KeyOverwritten, false},
		"slot overwritten without a lease":  {func(slot string, _ place) error { return put(slot) }, etcdlock.KeyOverwritten, true},
		"place deleted":                     {func(_ string, at place) error { return del(at.key) }, etcdlock.PlaceLost, false},
		"place overwritten":                 {func(_ string, at place) error { return put(at.key, clientv3.WithIgnoreLease()) }, etcdlock.PlaceLost, false},
		"place overwritten without a lease": {func(_ string, at place) error { return put(at.key) }, etcdlock.PlaceLost, false},
		"lease revoked":                     {func(_ string, at place) error { _, err := client.Revoke(ctx, at.lease); return err }, etcdlock.LeaseLost, false},
	} {
		inBoth(t, client, "/slots-forced/"+name, ttl, func(t *testing.T, l *etcdlock.Lock) {
			key := l.Key()
			other := mustLock(t, newSitter(t, client, key, "other", 2))
			l.Mode = etcdlock.Slots(2)
			held := mustLock(t, l)
			next := queue(t, newSitter(t, client, key, "next", 2))
			after := queue(t, newSitter(t, client, key, "after", 2))
			slot := slotKey(key, held)
			must(t)(nil, one.hand(slot, placeOf(t, client, key, l.ID())))
			if lost := awaitLoss(t, held); lost.Reason != one.reason {
				t.Errorf("%s: %v", name, lost)
			}
			if one.reason.Forced() {
				<-held.Expired()
			} else {
				next.mustNotGet(t, 100*time.Millisecond)
				if held.Remaining() <= 0 {
					t.Errorf("%s: a request to stop took the validity away", name)
				}
			}
			if one.reason == etcdlock.SlotLost {
				next.mustGet(t)
				if next.held.Slot() != held.Slot() || applied(t, client, held.IsHolder()) {
					t.Errorf("%s: slot %d is held twice", name, held.Slot())
				}
			}
			var lost *etcdlock.LostError
			if err := l.Unlock(ctx); !errors.As(err, &lost) || lost.Reason != one.reason {
				t.Errorf("%s: Unlock: %v", name, err)
			}
			if one.stays {
				next.mustNotGet(t, 50*time.Millisecond)
				must(t)(nil, del(slot))
			}
			if one.reason != etcdlock.SlotLost {
				next.mustGet(t)
			}
			if err := errors.Join(next.held.Refresh(ctx), other.Refresh(ctx)); err != nil {
				t.Errorf("%s: the others: %v", name, err)
			}
			after.mustNotGet(t, 20*time.Millisecond)
			mustUnlock(t, next.Lock)
			takeTurns(t, after)
			must(t)(nil, other.Unlock(ctx))
			awaitKeys(t, client, key, 0)
		})
	}
}

// TestSlotAfterALoss: a holding that is lost says as before which slot it had, and not that of
// somebody else, before Unlock and after it.
func TestSlotAfterALoss(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	over := func(key string) clientv3.Op { return clientv3.OpPut(key, "by hand", clientv3.WithIgnoreLease()) }
	for name, hand := range map[string]func(slot, at string) []clientv3.Op{
		"slot deleted":                    func(slot, _ string) []clientv3.Op { return []clientv3.Op{clientv3.OpDelete(slot)} },
		"slot overwritten":                func(slot, _ string) []clientv3.Op { return []clientv3.Op{over(slot)} },
		"place deleted":                   func(_, at string) []clientv3.Op { return []clientv3.Op{clientv3.OpDelete(at)} },
		"place overwritten":               func(_, at string) []clientv3.Op { return []clientv3.Op{over(at)} },
		"slot deleted, place overwritten": func(slot, at string) []clientv3.Op { return []clientv3.Op{clientv3.OpDelete(slot), over(at)} },
		"slot overwritten, place deleted": func(slot, at string) []clientv3.Op { return []clientv3.Op{over(slot), clientv3.OpDelete(at)} },
	} {
		t.Run(name, func(t *testing.T) {
			_, l := sessionLock(t, client, "/slot-after/"+name, ttl)
			inside := fill(t, client, l.Key(), 2)
			if inside[0].Slot() == 1 {
				slices.Reverse(inside)
			}
			must(t)(nil, inside[1].Unlock(ctx))
			l.Mode = etcdlock.Slots(2)
			held := mustLock(t, l)
			must(t)(client.Txn(ctx).Then(hand(slotKey(l.Key(), held), placeOf(t, client, l.Key(), "me").key)...).Commit())
			lost := awaitLoss(t, held)
			if lost.Reason == etcdlock.PlaceLost { // the rest is removed before Unlock
				awaitKeys(t, client, l.Key(), 2)
			}
			if held.Slot() != 1 {
				t.Errorf("slot %d after the loss (%v)", held.Slot(), lost)
			}
			if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
				t.Errorf("Unlock: %v", err)
			}
			if held.Slot() != 1 {
				t.Errorf("slot %d after Unlock", held.Slot())
			}
			must(t)(nil, inside[0].Unlock(ctx))
		})
	}
}

// TestNextForASlotAndForced: whatever an operator does to who is next, or to K, nobody waits
// without end, and nothing is left.
func TestNextForASlotAndForced(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	put := func(key, value string, opts ...clientv3.OpOption) func() error {
		return func() error { _, err := client.Put(ctx, key, value, opts...); return err }
	}
	del := func(key string) func() error {
		return func() error { _, err := client.Delete(ctx, key); return err }
	}
	for name, hand := range map[string]func(key string, at place) (do, undo func() error){
		"K deleted":     func(key string, _ place) (do, undo func() error) { return del(key), nil },
		"K overwritten": func(key string, _ place) (do, undo func() error) { return put(key, "by hand"), del(key) },
		"K overwritten, with its lease": func(key string, _ place) (do, undo func() error) {
			return put(key, "x", clientv3.WithIgnoreLease()), nil
		},
		"place deleted": func(_ string, at place) (do, undo func() error) { return del(at.key), nil },
		"place overwritten": func(_ string, at place) (do, undo func() error) {
			return put(at.key, "x", clientv3.WithIgnoreLease()), nil
		},
		"place overwritten, with no lease": func(_ string, at place) (do, undo func() error) { return put(at.key, "x"), nil },
		"place overwritten, as with a slot": func(_ string, at place) (do, undo func() error) {
			return put(at.key, `{"slot":0,"v":1}`, clientv3.WithIgnoreLease()), nil
		},
		"place overwritten, with no value": func(_ string, at place) (do, undo func() error) {
			return put(at.key, "", clientv3.WithIgnoreLease()), nil
		},
		"lease revoked": func(_ string, at place) (do, undo func() error) {
			return func() error { _, err := client.Revoke(ctx, at.lease); return err }, nil
		},
		"K and the places of all are deleted": func(key string, _ place) (do, undo func() error) {
			return func() error { _, err := client.Delete(ctx, key, clientv3.WithPrefix()); return err }, nil
		},
	} {
		for _, who := range []string{"me", "second"} {
			inBoth(t, client, "/next-forced/"+name+"/"+who, ttl, func(t *testing.T, l *etcdlock.Lock) {
				key := l.Key()
				inside := fill(t, client, key, 2)
				l.Mode = etcdlock.Slots(2)
				line := []*waiter{queue(t, l)}
				line = append(line, queue(t, newSitter(t, client, key, "second", 2)), queue(t, newSitter(t, client, key, "third", 2)))
				do, undo := hand(key, placeOf(t, client, key, who))
				must(t)(nil, do())
				for _, w := range line {
					if name != "K and the places of all are deleted" {
						w.mustNotGet(t, 5*time.Millisecond)
					}
				}
				if err := inside[0].Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("%s: Unlock: %v", name, err)
				}
				if undo != nil {
					must(t)(nil, undo())
				}
				done := make(chan error, len(line))
				for _, w := range line { // in whatever order
					go func() {
						err := <-w.got
						if err == nil {
							err = w.Unlock(ctx)
						}
						done <- err
					}()
				}
				for range line {
					select {
					case err := <-done:
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					case <-time.After(10 * time.Second):
						for _, kv := range etcdtest.Keys(t, client, key) {
							t.Logf("%s = %s, created %d, written %d", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision)
						}
						t.Fatalf("%s of %s: somebody waits without end", name, who)
					}
				}
				inside[1].Unlock(ctx)
				for _, w := range line {
					must(t)(nil, w.Close(ctx))
				}
				awaitKeys(t, client, key, 0)
			})
		}
	}
}

// TestUnknownOutcomesOfSlots loses requests or answers of those who take slots: nobody else has the
// slot meanwhile, and nothing is left.
func TestUnknownOutcomesOfSlots(t *testing.T) {
	forVerdicts(t, []string{"SlotIfFree", "SlotTurn", "TakeSlot", "Release", "Read"}, func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict) {
		ctx := etcdtest.Context(t)
		gate, behind := s.Gated(t)
		client, key := s.Client(t), "/unknown-slots"
		session := newSession(t, behind)
		for _, l := range []*etcdlock.Lock{newSitter(t, behind, key, "own", 2), sitterIn(t, session, key, "in a session", 2)} {
			inside := fill(t, client, key, 2)
			var hit <-chan struct{}
			if kind != "TakeSlot" {
				hit = intercept(gate, 1, verdict, kind)
			}
			free := kind == "SlotIfFree" // nobody waits
			if free {
				must(t)(nil, inside[0].Unlock(ctx))
			}
			w, at := startLock(t, l), place{}
			if !free {
				awaitKeys(t, client, key+"/=2.", 3)
				at = placeOf(t, client, key, l.ID())
				w.mustNotGet(t, 20*time.Millisecond)
				if kind == "TakeSlot" { // what was asked before this was refused
					hit = intercept(gate, 1, verdict, kind)
				}
				must(t)(nil, inside[0].Unlock(ctx))
			}
			w.mustGet(t)
			if now := placeOf(t, client, key, l.ID()); !free && now != at {
				t.Errorf("it has lost its place: it was %v, and is %v", at, now)
			}
			if w.held.Slot() != inside[0].Slot() {
				t.Errorf("slot %d, not %d", w.held.Slot(), inside[0].Slot())
			}
			next := queue(t, newSitter(t, client, key, "next", 2))
			next.mustNotGet(t, 20*time.Millisecond)
			if err := w.held.Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Error(err)
			}
			if kind != "Read" {
				<-hit
				if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
					gate.AwaitHeld(t).Release() // comes late, and must do no harm
				}
			}
			takeTurns(t, next)
			must(t)(nil, inside[1].Unlock(ctx))
			must(t)(nil, l.Close(ctx))
		}
		gate.Intercept(nil)
		must(t)(nil, session.Close(ctx))
		awaitKeys(t, client, "", 0)
	})
}

// TestGivesUpAsItGetsASlot: who gives up while the outcome of a request is unknown has no slot, and
// keeps nobody waiting.
func TestGivesUpAsItGetsASlot(t *testing.T) {
	forVerdicts(t, []string{"SlotIfFree", "SlotTurn", "TakeSlot"}, func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict) {
		ctx := etcdtest.Context(t)
		gate, behind := s.Gated(t)
		client, key := s.Client(t), "/gives-up"
		session := newSession(t, behind)
		for _, l := range []*etcdlock.Lock{newSitter(t, behind, key, "own", 2), sitterIn(t, session, key, "in a session", 2)} {
			must(t)(nil, l.Prepare(ctx))
			inside := fill(t, client, key, 2)
			late := func() {}
			leave := func(w *waiter, hit <-chan struct{}) {
				<-hit
				if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
					held := gate.AwaitHeld(t)
					late = func() { held.Release() }
				}
				w.mustLeave(t)
			}
			var next *waiter
			if kind == "TakeSlot" {
				w := queue(t, l)
				next = queue(t, newSitter(t, client, key, "next", 2))
				hit := intercept(gate, every, verdict, kind)
				must(t)(nil, inside[0].Unlock(ctx))
				leave(w, hit)
			} else {
				hit := intercept(gate, every, verdict, kind)
				if kind == "SlotIfFree" {
					must(t)(nil, inside[0].Unlock(ctx))
				}
				leave(startLock(t, l), hit)
				if kind == "SlotTurn" {
					must(t)(nil, inside[0].Unlock(ctx))
				}
				next = startLock(t, newSitter(t, client, key, "next", 2))
			}
			gate.Intercept(nil)
			late()
			takeTurns(t, next)
			must(t)(nil, inside[1].Unlock(ctx))
			must(t)(nil, next.Close(ctx))
			must(t)(nil, l.Close(ctx))
		}
		must(t)(nil, session.Close(ctx))
		awaitKeys(t, client, "", 0)
	})
}

// TestSlotPutBack: a place that is put back by hand as it was when it had a slot has none: somebody
// else has that now, and its contender waits for one.
func TestSlotPutBack(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/slot-put-back", ttl, func(t *testing.T, l *etcdlock.Lock) {
		l.Mode = etcdlock.Slots(2)
		mustLock(t, l)
		old := placeOf(t, client, l.Key(), l.ID())
		was := etcdtest.Keys(t, client, old.key)[0]
		mustUnlock(t, l)
		inside := fill(t, client, l.Key(), 2)
		must(t)(client.Put(ctx, old.key, string(was.Value), clientv3.WithLease(old.lease)))
		w := queue(t, l)
		must(t)(nil, inside[0].Unlock(ctx))
		takeTurns(t, w)
		must(t)(nil, inside[1].Unlock(ctx))
		must(t)(nil, l.Session().Close(ctx))
		awaitKeys(t, client, l.Key(), 0)
	})
}

// TestSlotGoneBeforeTheAnswer: a slot was taken, the answer is lost, and before it is asked for
// again somebody deletes the slot, and another one takes it. Only that one has it then.
func TestSlotGoneBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	for _, kind := range []string{"SlotIfFree", "TakeSlot"} {
		inBoth(t, behind, "/slot-gone/"+kind, ttl, func(t *testing.T, l *etcdlock.Lock) {
			key := l.Key()
			l.Mode = etcdlock.Slots(2)
			inside := fill(t, client, key, 2)
			waits := make(chan struct{}, 8)
			l.OnWait = func() { waits <- struct{}{} }
			var w *waiter
			if kind == "TakeSlot" {
				w = startLock(t, l)
				<-waits
			}
			slot := slotKey(key, inside[0])
			intercept(gate, every, etcdtest.HoldAnswer, kind)
			must(t)(nil, inside[0].Unlock(ctx))
			if kind == "SlotIfFree" {
				w = startLock(t, l)
			}
			w.waits = waits
			answer := gate.AwaitHeld(t)
			for len(etcdtest.Keys(t, client, slot)) == 0 { // it was asked for before it was free
				answer.Release()
				answer = gate.AwaitHeld(t)
			}
			must(t)(client.Delete(ctx, slot))
			other := mustLock(t, newSitter(t, client, key, "other", 2))
			gate.Intercept(nil)
			w.mustWait(t)
			answer.Release()
			must(t)(nil, other.Unlock(ctx))
			takeTurns(t, w)
			must(t)(nil, inside[1].Unlock(ctx))
			must(t)(nil, l.Session().Close(ctx))
			awaitKeys(t, client, key, 0)
		})
	}
}

// TestOverwrittenSlotIsItsHolders: who looks for what is left of its place leaves a slot alone that
// a sibling's holding still has, though somebody has overwritten it.
func TestOverwrittenSlotIsItsHolders(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client, session, key := s.Client(t), newSession(t, behind), "/overwritten"
	for _, id := range []string{"a", "b"} { // whichever slot is looked at
		held := mustLock(t, sitterIn(t, session, key, id, 2))
		must(t)(client.Put(ctx, slotKey(key, held), "by hand", clientv3.WithIgnoreLease()))
		awaitLoss(t, held)
	}
	next := queue(t, newSitter(t, client, key, "next", 2))
	intercept(gate, 1, etcdtest.HoldAnswer, "SlotTurn")
	w := startLock(t, sitterIn(t, session, key, "me", 2))
	answer := gate.AwaitHeld(t)
	w.mustLeave(t)
	looked := make(chan struct{}, 1000)
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if txn, ok := request.(*pb.TxnRequest); ok && kind.Of(txn) == "WrittenRead" {
			looked <- struct{}{}
		}
		return etcdtest.Pass
	})
	answer.Release()
	<-looked
	next.mustNotGet(t, 300*time.Millisecond)
}
