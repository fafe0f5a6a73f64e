package etcdlock_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
)

// loseFirstAnswers loses the answer to the first request of each place for a free slot, as those do
// who give up a try while etcd is slow. It returns how many places have lost one. From five on none
// is lost, so that nobody begins anew without end.
func loseFirstAnswers(gate *etcdtest.Gate) (places *atomic.Int32) {
	lost := make(map[string]bool)
	places = new(atomic.Int32)
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if kindOf(method, request) != "SlotIfFree" {
			return etcdtest.Pass
		}
		cmps := request.(*pb.TxnRequest).Compare
		place := string(cmps[len(cmps)-2].Key) // the last one is the slot
		if lost[place] || len(lost) == 5 {
			return etcdtest.Pass
		}
		lost[place] = true
		places.Add(1)
		return etcdtest.FailApplied
	})
	return places
}

// TestSlotAskedForAgain: who is not answered in time, asks again for a slot, and is refused, goes
// on from there. It does not begin anew, which would have no end while etcd is slow.
func TestSlotAskedForAgain(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	inBoth(t, behind, "/slots-again", ttl, func(t *testing.T, l *etcdlock.Lock) {
		l.Mode = etcdlock.Slots(2)
		atOnePlace := func(what string, do func()) {
			t.Helper()
			places := loseFirstAnswers(gate)
			if do(); places.Load() != 1 {
				t.Errorf("%s: it has asked as %d places", what, places.Load())
			}
		}
		asked := mustLock(t, l).Slot() // that of the last time
		mustUnlock(t, l)
		inside := fill(t, client, l.Key(), 2)
		if inside[0].Slot() != asked {
			slices.Reverse(inside)
		}
		must(t)(nil, inside[1].Unlock(ctx))
		atOnePlace("another slot is free", func() {
			if held, err := l.TryLock(ctx); err != nil || held.Slot() != inside[1].Slot() {
				t.Errorf("another slot is free: %v", err)
			}
		})
		mustUnlock(t, l)
		inside[1] = mustLock(t, newSitter(t, client, l.Key(), "inside again", 2))
		atOnePlace("TryLock", func() {
			if _, err := l.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
				t.Errorf("TryLock: %v", err)
			}
		})
		var w *waiter
		atOnePlace("Lock", func() { w = queue(t, l) })
		atOnePlace("a place was lost", func() {
			must(t)(client.Delete(ctx, placeOf(t, client, l.Key(), "me").key))
			w.mustWait(t)
		})
		later := queue(t, newSitter(t, client, l.Key(), "later", 2))
		w.mustNotGet(t, 20*time.Millisecond)
		must(t)(nil, inside[0].Unlock(ctx))
		takeTurns(t, w, later)
		must(t)(nil, inside[1].Unlock(ctx))
		awaitKeys(t, client, l.Key(), 0)
	})
}

// TestSlotOfADeletedPlace: the answer to who has taken a slot is lost, and an operator deletes its
// place before it asks again. The slot that it has left does not stay, and it gets that one again.
func TestSlotOfADeletedPlace(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	inBoth(t, behind, "/slots-deleted", ttl, func(t *testing.T, l *etcdlock.Lock) {
		asked, deleted := false, atomic.Bool{}
		gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
			switch {
			case kindOf(method, request) != "SlotIfFree", deleted.Load():
				return etcdtest.Pass
			case asked:
				return etcdtest.Fail
			}
			asked = true
			return etcdtest.FailApplied
		})
		l.Mode = etcdlock.Slots(2)
		w := startLock(t, l)
		awaitKeys(t, client, l.Key()+"/", 2)
		must(t)(client.Delete(ctx, placeOf(t, client, l.Key(), "me").key))
		other := mustLock(t, newSitter(t, client, l.Key(), "other", 2))
		deleted.Store(true)
		select {
		case err := <-w.got:
			must(t)(nil, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("it waits for the slot that it has left: %v", etcdtest.Keys(t, client, l.Key()))
		}
		mustUnlock(t, l)
		must(t)(nil, other.Unlock(ctx))
		awaitKeys(t, client, l.Key(), 0)
	})
}

// TestSlotOfASibling: who asks again for a slot that another lock of its session has leaves it that
// one, and goes into the line.
func TestSlotOfASibling(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client, session := s.Client(t), newSession(t, behind)
	const key = "/slots-sibling"
	inside := []grip{mustLock(t, sitterIn(t, session, key, "a", 2)), mustLock(t, sitterIn(t, session, key, "b", 2))}
	l := sitterIn(t, session, key, "me", 2)
	places := loseFirstAnswers(gate)
	if _, err := l.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("TryLock: %v", err)
	}
	w := queue(t, l)
	if places.Load() != 2 {
		t.Errorf("TryLock and Lock have asked as %d places", places.Load())
	}
	for _, one := range inside {
		if !applied(t, client, one.IsHolder()) {
			t.Errorf("slot %d was taken from its holder", one.Slot())
		}
	}
	w.mustNotGet(t, 20*time.Millisecond)
	for _, one := range inside {
		must(t)(nil, one.Unlock(ctx))
	}
	takeTurns(t, w)
	awaitKeys(t, client, key, 0)
}

// TestNextWithAPlaceOverwritten: who is next, and whose place somebody has made that of a holder,
// leaves nothing of itself, and begins anew.
func TestNextWithAPlaceOverwritten(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	inBoth(t, behind, "/slots-next-overwritten", ttl, func(t *testing.T, l *etcdlock.Lock) {
		l.Mode = etcdlock.Slots(2)
		inside := fill(t, client, l.Key(), 2)
		// An earlier try may have got a slot.
		intercept(gate, 1, etcdtest.HoldAnswer, "SlotTurn")
		w := queue(t, l)
		must(t)(nil, gate.AwaitHeld(t).Release())
		at := placeOf(t, client, l.Key(), "me")
		must(t)(client.Put(ctx, at.key, record.Seated(record.Self("me").Marshal(), inside[0].Slot()), clientv3.WithIgnoreLease()))
		must(t)(nil, inside[0].Unlock(ctx))
		select {
		case err := <-w.got:
			must(t)(nil, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("it waits for what it has left: %v", etcdtest.Keys(t, client, l.Key()))
		}
		mustUnlock(t, l)
		must(t)(nil, inside[1].Unlock(ctx))
		must(t)(nil, l.Session().Close(ctx))
		awaitKeys(t, client, l.Key(), 0)
	})
}
