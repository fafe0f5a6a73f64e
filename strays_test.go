package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// forms are the names of places, by who stands there.
var forms = map[string]func(lock string, lease clientv3.LeaseID, n int64) string{
	"linked": wire.LinkedPlace, "unlinked": wire.UnlinkedPlace, "shared": wire.SharedPlace,
}

// slotForm is the name of the place of who wants one of two slots.
func slotForm(lock string, lease clientv3.LeaseID, n int64) string {
	return wire.SlotPlace(lock, 2, lease, n)
}

// putPlace puts a place by hand under a lease.
func putPlace(t testing.TB, client *clientv3.Client, key string, lease clientv3.LeaseID) {
	t.Helper()
	must(t)(client.Put(etcdtest.Context(t), key, record.Self("by hand").Marshal(), clientv3.WithLease(lease)))
}

// awaitRemoval waits until a place is gone. A broken lock never removes it.
func awaitRemoval(t testing.TB, client *clientv3.Client, place string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(etcdtest.Context(t), 10*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, place)
	must(t)(resp, err)
	if len(resp.Kvs) == 0 {
		return
	}
	for events := range client.Watch(ctx, place, clientv3.WithRev(resp.Header.Revision+1), clientv3.WithFilterPut()) {
		if len(events.Events) > 0 {
			return
		}
	}
	t.Fatalf("%s is not removed", place)
}

// TestNobodysPlace: a lock does not wait behind a place under its own lease at which nobody stands.
func TestNobodysPlace(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	for form, name := range forms {
		for _, mode := range []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Shared} {
			if form == "shared" && mode == etcdlock.Shared {
				continue // they do not wait for each other
			}
			key := fmt.Sprintf("/nobody/%s/%v", form, mode)
			inBoth(t, s.Client(t), key, ttl, func(t *testing.T, l *etcdlock.Lock) {
				l.Mode = mode
				lease := mustLock(t, l).Lease()
				mustUnlock(t, l)
				holder := newHolder(t, client, key, "holder")
				putPlace(t, client, name(key, lease, 99), lease)
				w := queue(t, l)
				mustUnlock(t, holder)
				takeTurns(t, w)
				awaitNoWatch(t, l)
				if err := l.Session().Close(etcdtest.Context(t)); err != nil {
					t.Error(err)
				}
				awaitKeys(t, client, key, 0)
			})
		}
	}
}

// TestNobodysPlaceTried: who only tries finds the lock free after such a place was met.
func TestNobodysPlaceTried(t *testing.T) {
	s := etcdtest.Start(t)
	for form, name := range forms {
		t.Run(form, func(t *testing.T) {
			inBoth(t, s.Client(t), "/tried", ttl, func(t *testing.T, l *etcdlock.Lock) {
				lease := mustLock(t, l).Lease()
				mustUnlock(t, l)
				putPlace(t, s.Client(t), name("/tried", lease, 99), lease)
				await(t, "the lock to be free", func() (bool, any) {
					_, err := l.TryLock(etcdtest.Context(t))
					return err == nil, err
				})
				mustUnlock(t, l)
			})
		})
	}
}

// TestNobodysPlaceTriedInAllModes: who tries to share the lock, or to get a slot, has such a place
// removed, whatever it stands for, and finds the lock free then; also if the newest key below K is
// no place.
func TestNobodysPlaceTriedInAllModes(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	all := maps.Clone(forms)
	all["slot"] = slotForm
	for form, name := range all {
		for _, mode := range []etcdlock.Mode{etcdlock.Shared, etcdlock.Slots(2)} {
			if form == "shared" && mode == etcdlock.Shared {
				continue // it is free at once
			}
			for _, more := range []bool{false, true} {
				inBoth(t, client, fmt.Sprintf("/all-modes/%s/%v/%v", form, mode, more), ttl, func(t *testing.T, l *etcdlock.Lock) {
					l.Mode = mode
					triedBehind(t, client, l, name, more)
				})
			}
		}
	}
}

func triedBehind(t *testing.T, client *clientv3.Client, l *etcdlock.Lock, name func(string, clientv3.LeaseID, int64) string, more bool) {
	ctx := etcdtest.Context(t)
	lease := mustLock(t, l).Lease()
	mustUnlock(t, l)
	place := name(l.Key(), lease, 99)
	putPlace(t, client, place, lease)
	if more {
		must(t)(client.Put(ctx, fmt.Sprintf("%s/below %x", l.Key(), lease), "no place"))
	}
	if _, err := l.TryLock(ctx); err == nil { // it was removed between two looks
		mustUnlock(t, l)
	}
	awaitRemoval(t, client, place)
	if _, err := l.TryLock(ctx); err != nil {
		t.Errorf("TryLock: %v", err)
	}
}

// TestNobodysPlaceInAnotherMode: Lock fails once because of such a place that wants the lock in
// another mode, and has it removed.
func TestNobodysPlaceInAnotherMode(t *testing.T) {
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	three := func(lock string, lease clientv3.LeaseID, n int64) string { return wire.SlotPlace(lock, 3, lease, n) }
	for name, one := range map[string]struct {
		want etcdlock.Mode
		name func(lock string, lease clientv3.LeaseID, n int64) string
	}{
		"alone, behind who wants a slot":  {etcdlock.Exclusive, slotForm},
		"shared, behind who wants a slot": {etcdlock.Shared, slotForm},
		"a slot, behind who is alone":     {etcdlock.Slots(2), wire.LinkedPlace},
		"a slot, behind who shares":       {etcdlock.Slots(2), wire.SharedPlace},
		"a slot, of another number":       {etcdlock.Slots(2), three},
	} {
		inBoth(t, client, "/another/"+name, ttl, func(t *testing.T, l *etcdlock.Lock) {
			l.Mode = one.want
			lease := mustLock(t, l).Lease()
			mustUnlock(t, l)
			place := one.name(l.Key(), lease, 99)
			putPlace(t, client, place, lease)
			if _, err := l.Lock(ctx); !errors.Is(err, etcdlock.ErrMode) {
				t.Errorf("%s: Lock: %v", name, err)
			}
			awaitRemoval(t, client, place)
			mustLock(t, l)
		})
	}
}

// TestNobodysPlaceWithoutTheTail: the same for who may not write the tail.
func TestNobodysPlaceWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	worker := etcdtest.Dial(t, newWorker(t, s, "/no-tail"))
	client := s.Client(t)
	for form, name := range forms {
		t.Run(form, func(t *testing.T) {
			inBoth(t, worker, "/no-tail", ttl, func(t *testing.T, l *etcdlock.Lock) {
				lease := mustLock(t, l).Lease()
				mustUnlock(t, l)
				holder := newHolder(t, client, "/no-tail", "holder")
				putPlace(t, client, name("/no-tail", lease, 99), lease)
				w := queue(t, l)
				mustUnlock(t, holder)
				takeTurns(t, w)
			})
		})
	}
}

// isLastLook reports whether a request is the last with which a waiter whose place was deleted
// looks for what is left of it.
func isLastLook(mode etcdlock.Mode, key string, request proto.Message) bool {
	txn, ok := request.(*pb.TxnRequest)
	switch {
	case !ok:
		return false
	case mode == etcdlock.Shared:
		return kind.Of(txn) == "Leave"
	}
	return kind.Of(txn) == "KeyRead" && string(txn.Success[0].GetRequestRange().Key) == key
}

// meets reports whether a request is the read of a waiter that looks for what stands before it.
func meets(place string, request proto.Message) bool {
	txn, ok := request.(*pb.TxnRequest)
	return ok && kind.Of(txn) == "StateRead" && len(txn.Success) > 2 &&
		string(txn.Success[2].GetRequestRange().Key) == place
}

// TestPlacePutAgainLate: an operator deletes a waiter's place, and puts it again when the waiter
// has looked for what is left of it. Whoever comes next gets the lock.
func TestPlacePutAgainLate(t *testing.T) {
	s := etcdtest.Start(t)
	for _, mode := range []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Shared} {
		for _, met := range []bool{false, true} { // before the waiter's first place is left
			t.Run(fmt.Sprintf("%v/met %v", mode, met), func(t *testing.T) { putAgainLate(t, s, mode, met) })
		}
	}
}

func putAgainLate(t *testing.T, s *etcdtest.Server, mode etcdlock.Mode, met bool) {
	const key = "/late"
	client, ctx := s.Client(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	session, l := sessionLock(t, behind, key, ttl)
	l.Mode = mode
	holder := newHolder(t, client, key, "holder")
	w := queue(t, l)
	old := placeOf(t, client, key, "me")

	looked, joined, seen := false, false, make(chan struct{}, 100) // hooks do not overlap
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		txn, _ := request.(*pb.TxnRequest)
		switch {
		case meets(old.key, request):
			seen <- struct{}{}
		case !looked && isLastLook(mode, key, request):
			looked = true
			return etcdtest.HoldAnswer
		case !joined && txn != nil && (kind.Of(txn) == "Acquire" || kind.Of(txn) == "Share"):
			joined = true
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	must(t)(client.Delete(ctx, old.key))
	look, join := gate.AwaitHeld(t), gate.AwaitHeld(t)
	if look.Answer == nil {
		look, join = join, look
	}
	putPlace(t, client, old.key, old.lease)
	if !met {
		look.Release()
	}
	join.Release()
	w.mustWait(t)
	if met {
		if mode == etcdlock.Exclusive { // who shares the lock does not wait behind another one
			<-seen
		}
		look.Release()
	}
	next := queue(t, lockIn(t, session, key, "next"))
	mustUnlock(t, holder)
	takeTurns(t, w, next)
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	awaitKeys(t, client, key, 0)
}

// TestSomebodysPlace: a place at which somebody stands is not removed, however often it is met
// while a request of that one has no answer.
func TestSomebodysPlace(t *testing.T) {
	s := etcdtest.Start(t)
	for _, what := range []string{"joins", "releases", "passes"} {
		t.Run(what, func(t *testing.T) { somebodysPlace(t, s, what) })
	}
}

func somebodysPlace(t *testing.T, s *etcdtest.Server, what string) {
	const key = "/somebody"
	client, ctx := s.Client(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	session.RefreshInterval = 50 * time.Millisecond
	session.Logger = onMessage("removed a place in line at which nobody stood", func() { t.Error("it is removed") })
	l, next := lockIn(t, session, key, "me"), lockIn(t, session, key, "next")

	begin := l.Unlock
	verdict, kinds := etcdtest.HoldRequest, []string{"Release"}
	var holder *etcdlock.Lock
	var second *waiter
	switch what {
	case "joins":
		holder = newHolder(t, client, key, "holder")
		begin = func(ctx context.Context) error { _, err := l.Lock(ctx); return err }
		verdict, kinds = etcdtest.HoldAnswer, joins
	case "releases":
		mustLock(t, l)
	case "passes":
		mustLock(t, l)
		second = queue(t, next)
		awaitNextKnown(t, l)
		kinds = []string{"Pass"}
	}
	intercept(gate, 1, verdict, kinds...)
	done := inBackground(func() error { return begin(ctx) })
	held := gate.AwaitHeld(t)
	place, seen := placeOf(t, client, key, "me"), make(chan struct{}, 1000)
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if meets(place.key, request) {
			seen <- struct{}{}
		}
		return etcdtest.Pass
	})
	if second == nil {
		second = queue(t, next)
	}
	for range 4 { // if the first ones had it removed, it is gone by the last
		select {
		case <-seen:
		case <-ctx.Done():
			t.Fatal("it is not met any more")
		}
	}
	if is := placeOf(t, client, key, "me"); is != place {
		t.Errorf("its place is %v, and was %v", is, place)
	}
	held.Release()
	if holder != nil {
		mustUnlock(t, holder)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if what == "joins" {
		mustUnlock(t, l)
	}
	takeTurns(t, second)
}

// TestNobodysPlaceIsTaken: a lock does not stand at a place while it is removed, though that has
// the name of the place where it stood before.
func TestNobodysPlaceIsTaken(t *testing.T) {
	s := etcdtest.Start(t)
	const key = "/taken"
	client := s.Client(t)
	gate, behind := s.Gated(t)
	session, l := sessionLock(t, behind, key, ttl)
	mustLock(t, l)
	old := placeOf(t, client, key, "me")
	mustUnlock(t, l)
	holder := newHolder(t, client, key, "holder")
	putPlace(t, client, old.key, old.lease)
	intercept(gate, 1, etcdtest.HoldRequest, "Remove")
	first := queue(t, lockIn(t, session, key, "first"))
	removal := gate.AwaitHeld(t)
	second := queue(t, l)
	if is := placeOf(t, client, key, "me"); is == old {
		t.Errorf("it stands at %s, which is removed", old.key)
	}
	removal.Release()
	mustUnlock(t, holder)
	takeTurns(t, first, second)
	for range 2 { // and again at a place that it keeps
		mustLock(t, l)
		mustUnlock(t, l)
	}
}

// TestReleasedWhileAPlaceIsRemoved: a lock with a session of its own does not use a lease again
// under which a place was still being removed at the release. It would wait for that without end.
func TestReleasedWhileAPlaceIsRemoved(t *testing.T) {
	s := etcdtest.Start(t)
	const key = "/cut-off"
	client := s.Client(t)
	gate, behind := s.Gated(t)
	l := newLock(t, behind, key, "me")
	lease := mustLock(t, l).Lease()
	mustUnlock(t, l)
	holder := newHolder(t, client, key, "holder")
	putPlace(t, client, wire.LinkedPlace(key, lease, 99), lease)
	hit := intercept(gate, every, etcdtest.Drop, "Remove")
	w := queue(t, l)
	<-hit
	awaitNextKnown(t, holder)
	mustUnlock(t, holder)
	takeTurns(t, w)
	gate.Intercept(nil)

	again := startLock(t, l)
	select {
	case <-w.waits:
		if placeOf(t, client, key, "me").lease == lease {
			t.Fatal("it waits behind a place under its own lease")
		}
		again.mustGet(t)
	case err := <-again.got:
		must(t)(nil, err)
	}
}

// TestClosedWhileAPlaceIsRemoved: what removes a place ends with the session.
func TestClosedWhileAPlaceIsRemoved(t *testing.T) {
	s := etcdtest.Start(t)
	for name, verdict := range verdicts {
		t.Run(name, func(t *testing.T) {
			gate, behind := s.Gated(t)
			inBoth(t, behind, "/closed", ttl, func(t *testing.T, l *etcdlock.Lock) {
				lease := mustLock(t, l).Lease()
				mustUnlock(t, l)
				newHolder(t, s.Client(t), "/closed", "holder")
				putPlace(t, s.Client(t), wire.LinkedPlace("/closed", lease, 99), lease)
				hit := intercept(gate, every, verdict, "Remove")
				w := queue(t, l)
				<-hit
				if err := l.Session().Close(etcdtest.Context(t)); err != nil {
					t.Error(err)
				}
				if err := <-w.got; !errors.Is(err, etcdlock.ErrClosed) {
					t.Errorf("Lock: %v", err)
				}
				gate.Intercept(nil)
				awaitNoWatch(t, l)
				awaitKeys(t, s.Client(t), "/closed/", 1)
			})
		})
	}
}
