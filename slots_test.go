package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// TestSlots: as many as there are slots hold the lock, each another one, and who waits gets one in
// turn; nothing is left.
func TestSlots(t *testing.T) {
	etcdtest.NoLeaks(t)
	client := etcdtest.Start(t).Client(t)
	session := newSession(t, client)
	const key, n = "/slots", 3
	var inside []grip
	taken := make(map[int]bool)
	for i := range n {
		g := mustLock(t, newSitter(t, client, key, fmt.Sprint("inside ", i), n))
		if taken[g.Slot()] || g.Slot() < 0 || g.Slot() >= n || g.Mode() != etcdlock.Slots(n) || !applied(t, client, g.IsHolder()) {
			t.Errorf("slot %d, %v", g.Slot(), g.Mode())
		}
		taken[g.Slot()] = true
		inside = append(inside, g)
	}
	var waiters []*waiter
	for i := range 6 {
		l := newSitter(t, client, key, fmt.Sprint("waits ", i), n)
		if i%2 > 0 {
			l = sitterIn(t, session, key, fmt.Sprint("waits in a session ", i), n)
		}
		waiters = append(waiters, queue(t, l))
	}
	for i, w := range waiters {
		w.mustNotGet(t, 20*time.Millisecond)
		freed := inside[i]
		must(t)(nil, freed.Unlock(etcdtest.Context(t)))
		if applied(t, client, freed.IsHolder()) {
			t.Error("what was given back is held")
		}
		w.mustGet(t)
		if held := w.held; held.Slot() != freed.Slot() || held.Token() <= freed.Token() {
			t.Errorf("slot %d after %d, token %d after %d", held.Slot(), freed.Slot(), held.Token(), freed.Token())
		}
		inside = append(inside, w.held)
	}
	for _, one := range inside[len(waiters):] {
		must(t)(nil, one.Unlock(etcdtest.Context(t)))
	}
	for _, w := range waiters {
		must(t)(nil, w.Close(etcdtest.Context(t)))
	}
	must(t)(nil, session.Close(etcdtest.Context(t)))
	awaitKeys(t, client, key, 0)
}

// TestOtherMode: who wants the lock in another mode than it has is told so, and leaves nothing,
// also where keys of other locks are called as if they were of its line.
func TestOtherMode(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	strays := []string{"/~since", "/~tail", "/=3.foo", "/=3#7", "/=3.1-1", "/=1001#5", "/=1.x", "/~s1-1", "/~1-1"}
	modes := []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Shared, etcdlock.Slots(3), etcdlock.Slots(12)}
	for _, have := range modes {
		for _, want := range modes {
			if have == want || have <= 0 && want <= 0 {
				continue
			}
			for _, beside := range [][]string{nil, strays} {
				key := fmt.Sprintf("/other-mode/%d/%d/%d", have, want, len(beside))
				for _, stray := range beside {
					must(t)(client.Put(etcdtest.Context(t), key+stray, "{}"))
				}
				checkOtherMode(t, client, key, have, want, len(etcdtest.Keys(t, client, key)))
			}
		}
	}
}

// checkOtherMode has a lock held in one mode, and asks for it in another. Beside the lock are some
// keys.
func checkOtherMode(t *testing.T, client *clientv3.Client, key string, have, want etcdlock.Mode, beside int) {
	t.Helper()
	ctx := etcdtest.Context(t)
	holder, l := newLock(t, client, key, "holder"), newLock(t, client, key, "other")
	holder.Mode, l.Mode = have, want
	held := mustLock(t, holder)
	keys := len(etcdtest.Keys(t, client, key))
	for range 2 {
		for name, lock := range map[string]func() error{
			"Lock":    func() error { _, err := l.Lock(ctx); return err },
			"TryLock": func() error { _, err := l.TryLock(ctx); return err },
		} {
			err := lock()
			var other *etcdlock.ModeError
			if !errors.As(err, &other) || !errors.Is(err, etcdlock.ErrMode) || errors.Is(err, etcdlock.ErrBusy) || other.Have != have || other.Want != want || other.ID != "holder" || other.Key != key {
				t.Errorf("%v, %d keys beside it, and %s of %v: %v, %+v", have, beside, name, want, err, other)
			}
		}
	}
	awaitKeys(t, client, key, keys)
	must(t)(nil, held.Unlock(ctx))
	must(t)(nil, holder.Close(ctx))
	if _, err := l.TryLock(ctx); err != nil {
		t.Errorf("free, %d keys beside it: %v", beside, err)
	}
	must(t)(nil, l.Close(ctx))
	awaitKeys(t, client, key, beside)
}

// TestModesOfSlots: there are from 2 to 1,000 slots, and one alone is the lock Exclusive.
func TestModesOfSlots(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	l, set := newLock(t, client, "/modes-of-slots", "me"), setIn(t, session, "me", "/modes-of-slots")
	for _, n := range []int{0, -1, -2, -3, 1001, -1 << 62, 1 << 62} {
		l.Mode = etcdlock.Slots(n)
		set.Mode = l.Mode
		for name, lock := range map[string]func() error{
			"Lock":           func() error { _, err := l.Lock(ctx); return err },
			"TryLock":        func() error { _, err := l.TryLock(ctx); return err },
			"Prepare":        func() error { return l.Prepare(ctx) },
			"Run":            func() error { return l.Run(ctx, func(context.Context, *etcdlock.Held) error { return nil }) },
			"Lock of a set":  func() error { _, err := set.Lock(ctx); return err },
			"TryLock of one": func() error { _, err := set.TryLock(ctx); return err },
		} {
			if err := lock(); err == nil || !strings.Contains(err.Error(), "1 to 1000") {
				t.Errorf("%s of Slots(%d): %v", name, n, err)
			}
		}
	}
	if etcdlock.Slots(1) != etcdlock.Exclusive {
		t.Errorf("one slot is %v", etcdlock.Slots(1))
	}
	for _, n := range []int{2, 1000} {
		l.Mode = etcdlock.Slots(n)
		held := mustLock(t, l)
		if want := fmt.Sprintf("one of %d slots", n); held.Mode().String() != want || held.Slot() < 0 || held.Slot() >= n {
			t.Errorf("%v, slot %d", held.Mode(), held.Slot())
		}
		mustUnlock(t, l)
	}
	awaitKeys(t, client, "/modes-of-slots", 0)
}

// TestSlotsBesidePeers: a Mutex and v3lock wait for all who are older, and all who come later wait
// for them, though there is a free slot.
func TestSlotsBesidePeers(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	for kind := range contenderKinds {
		if kind == ours { // that has another mode
			continue
		}
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			key, peer := fmt.Sprint("/slots-peers/", kind), contender{}
			start := func() <-chan int64 {
				keys := len(etcdtest.Keys(t, client, key+"/"))
				peer = newContender(t, client, key, kind)
				got := make(chan int64, 1)
				lock := peer.lock
				go func() {
					token, err := lock(ctx)
					if err != nil {
						t.Error(err)
					}
					got <- token
				}()
				awaitKeys(t, client, key+"/", keys+1)
				return got
			}
			mustNotGet := func(got <-chan int64) {
				t.Helper()
				select {
				case <-got:
					t.Fatal("it has the lock beside one who has a slot")
				case <-time.After(50 * time.Millisecond):
				}
			}
			<-start()
			first := peer
			var line []*waiter
			for i := range 4 {
				line = append(line, queue(t, newSitter(t, client, key, fmt.Sprint(i), 2)))
			}
			got := start()
			later := queue(t, newSitter(t, client, key, "later", 2))
			latest := queue(t, newSitter(t, client, key, "latest", 2))
			line[0].mustNotGet(t, 50*time.Millisecond)
			must(t)(nil, first.unlock(ctx))
			for i, w := range line {
				w.mustGet(t)
				if i > 0 {
					mustNotGet(got)
					mustUnlock(t, line[i-1].Lock)
				}
			}
			later.mustNotGet(t, 50*time.Millisecond) // one slot is free
			mustNotGet(got)
			last := line[len(line)-1]
			must(t)(nil, last.Unlock(ctx))
			token := <-got
			if token <= last.held.Token() {
				t.Errorf("token %d after %d", token, last.held.Token())
			}
			later.mustNotGet(t, 50*time.Millisecond)
			must(t)(nil, peer.unlock(ctx))
			for _, w := range []*waiter{later, latest} {
				w.mustGet(t)
				if w.held.Token() <= token {
					t.Errorf("token %d after %d", w.held.Token(), token)
				}
			}
			mustUnlock(t, later.Lock)
			mustUnlock(t, latest.Lock)
			awaitKeys(t, client, key, 0)
		})
	}
}

// TestTrySlot: it takes a slot that is free if nobody waits for one, and does not mind keys that
// are no places of the lock.
func TestTrySlot(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/try-slot", ttl, func(t *testing.T, l *etcdlock.Lock) {
		l.Mode = etcdlock.Slots(3)
		isBusy := func(what string, taken, place int) {
			t.Helper()
			before := len(etcdtest.Keys(t, client, l.Key()))
			_, err := l.TryLock(ctx)
			var busy *etcdlock.BusyError
			if !errors.As(err, &busy) || busy.Holder != "" {
				t.Errorf("%s: %v", what, err)
			} else if want := fmt.Sprintf("no slot of lock %q is free: %d of 3 are taken (\"%s\")", l.Key(), taken, strings.Join(busy.Holders, `", "`)); err.Error() != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			} else if len(busy.Holders) != taken || slices.Contains(busy.Holders, "first") || slices.Contains(busy.Holders, l.ID()) {
				t.Errorf("%s: held by %q", what, busy.Holders)
			} else if busy.Place != place {
				t.Errorf("%s: place %d, want %d", what, busy.Place, place)
			}
			awaitKeys(t, client, l.Key(), before)
		}
		gets := func(what string) {
			t.Helper()
			if _, err := l.TryLock(ctx); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			mustUnlock(t, l)
		}
		gets("nobody is there")
		inside := fill(t, client, l.Key(), 2)
		for _, one := range inside {
			one.Unlock(ctx)
		}
		other := newSitter(t, client, l.Key(), "other", 3)
		mustLock(t, other)
		gets("two slots are free")
		for i := range 2 {
			inside[i] = mustLock(t, newSitter(t, client, l.Key(), fmt.Sprint("also ", i), 3))
			if i == 0 {
				gets("one slot is free")
			}
		}
		isBusy("all are taken", 3, 1)
		first := queue(t, newSitter(t, client, l.Key(), "first", 3))
		second := queue(t, newSitter(t, client, l.Key(), "second", 3))
		isBusy("two wait", 3, 3)
		first.mustLeave(t)
		mustUnlock(t, other)
		takeTurns(t, second)
		newHolder(t, client, l.Key()+"/below", "another lock")
		gets("another lock has a name below")
		mustLock(t, other)
		isBusy("all are taken, and another lock has a name below", 3, 3)
		mustUnlock(t, other)
		gets("one slot is free, and another lock has a name below")
		must(t)(nil, inside[0].Unlock(ctx))
		inside[0] = mustLock(t, newSitter(t, client, l.Key(), "newest", 3))
		gets("one slot is free, and another lock has a name below, and is older")
		for _, one := range inside {
			must(t)(nil, one.Unlock(ctx))
		}
	})
}

// TestSlotsGivenUp: who gives up, wherever in line, is not waited for, and gets no slot.
func TestSlotsGivenUp(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	session := newSession(t, client)
	const key, n = "/slots-given-up", 2
	for leaver := range 4 {
		inside := fill(t, client, key, n)
		var line, stay []*waiter
		for i := range 4 {
			l := newSitter(t, client, key, fmt.Sprint(i), n)
			if i%2 > 0 {
				l = sitterIn(t, session, key, fmt.Sprint(i), n)
			}
			line = append(line, queue(t, l))
		}
		for i, w := range line {
			if i == leaver {
				w.mustLeave(t)
			} else {
				stay = append(stay, w)
			}
		}
		stay = append(stay, queue(t, newSitter(t, client, key, "later", n)))
		awaitKeys(t, client, key+"/", 2*n+len(stay))
		for _, w := range stay {
			w.mustNotGet(t, 10*time.Millisecond)
		}
		must(t)(nil, inside[0].Unlock(etcdtest.Context(t)))
		for i, w := range stay {
			w.mustGet(t)
			for _, behind := range stay[i+1:] {
				behind.mustNotGet(t, 5*time.Millisecond)
			}
			mustUnlock(t, w.Lock)
		}
		must(t)(nil, inside[1].Unlock(etcdtest.Context(t)))
		for _, w := range append(line, stay...) {
			if w != line[leaver] {
				w.Close(etcdtest.Context(t))
			}
		}
		awaitKeys(t, client, key, 0)
	}
}

// TestNewestForSlotsDies: the newest in line takes the tail along when its lease is gone. Then
// nobody comes before those who wait, be there a free slot or not.
func TestNewestForSlotsDies(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key, n = "/slots-newest", 2
	for name, blocked := range map[string]bool{"K is there": false, "K is not": true} {
		// One who was passed K does not hear of it before he may.
		gate, behind := s.Gated(t)
		inside := fill(t, client, key, n)
		first := queue(t, newSitter(t, behind, key, "first", n))
		second := queue(t, newSitter(t, behind, key, "second", n))
		lease, err := client.Grant(ctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		newest := wire.Place{Lock: key, Key: wire.SlotPlace(key, n, lease.ID, 1), Lease: lease.ID, ID: "newest", Record: record.Self("newest").Marshal(), Mode: mode.OfSlots(n)}
		must(t)(pb.NewKVClient(client.ActiveConnection()).Txn(ctx, wire.SlotTurn(newest)))
		if tail, err := client.Get(ctx, key+"~tail"); err != nil || len(tail.Kvs) != 1 || tail.Kvs[0].Lease != int64(lease.ID) {
			t.Fatalf("%s: the tail does not name the newest: %v, %v", name, tail, err)
		}
		must(t)(client.Revoke(ctx, lease.ID))
		if tail, err := client.Get(ctx, key+"~tail"); err != nil || len(tail.Kvs) > 0 {
			t.Fatalf("%s: the tail is there: %v, %v", name, tail, err)
		}
		gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
			if kind := kindOf(method, request); blocked && (kind == "TakeSlot" || kind == "Claim") {
				return etcdtest.Fail
			}
			return etcdtest.Pass
		})
		if blocked {
			must(t)(client.Delete(ctx, key))
			must(t)(nil, inside[0].Unlock(ctx))
		}
		try := newSitter(t, client, key, "tries", n)
		if _, err := try.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
			t.Errorf("%s: TryLock before those who wait: %v", name, err)
		}
		late := queue(t, newSitter(t, client, key, "late", n))
		late.mustNotGet(t, 50*time.Millisecond)
		gate.Intercept(nil)
		if !blocked {
			must(t)(nil, inside[0].Unlock(ctx))
			takeTurns(t, first, second, late)
		} else { // the first has lost K, and its place with it
			takeTurns(t, second, late, first)
		}
		must(t)(nil, inside[1].Unlock(ctx))
		for _, w := range []*waiter{first, second, late} {
			must(t)(nil, w.Close(ctx))
		}
		must(t)(nil, try.Close(ctx))
		awaitKeys(t, client, key, 0)
	}
}

// TestSlotAskedForOnce: the next in line asks for a slot once when it becomes that, and once when
// one is given back.
func TestSlotAskedForOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	gate, behind := s.Gated(t)
	const key = "/asked-for-once"
	inside := []*etcdlock.Lock{newSitter(t, s.Client(t), key, "one", 2), newSitter(t, s.Client(t), key, "other", 2)}
	for _, l := range inside {
		mustLock(t, l)
	}
	asked := intercept(gate, 1000, etcdtest.Pass, "TakeSlot")
	next := newSitter(t, behind, key, "next", 2)
	w := queue(t, next)
	mustUnlock(t, inside[0])
	w.mustGet(t)
	if n := len(asked); n != 2 {
		t.Errorf("asked %d times", n)
	}
	mustUnlock(t, next)
	mustUnlock(t, inside[1])
	awaitKeys(t, s.Client(t), key, 0)
}

// TestSlotWithoutTheTail: who may not write the tail is told so, and leaves nothing.
func TestSlotWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	inBoth(t, etcdtest.Dial(t, newWorker(t, s, "/no-tail")), "/no-tail", ttl, func(t *testing.T, l *etcdlock.Lock) {
		client, ctx := s.Client(t), etcdtest.Context(t)
		l.Mode = etcdlock.Slots(2)
		for what, lock := range map[string]func(context.Context) (*etcdlock.Held, error){"Lock": l.Lock, "TryLock": l.TryLock} {
			if _, err := lock(ctx); !retry.IsDenied(err) || !strings.Contains(err.Error(), "/no-tail~tail") {
				t.Errorf("%s: %v", what, err)
			}
		}
		awaitKeys(t, client, "/no-tail", 0)
		// In other modes it may.
		l.Mode = etcdlock.Exclusive
		mustLock(t, l)
		mustUnlock(t, l)
		permit(t, s, "/no-tail~tail", authpb.READWRITE)
		l.Mode = etcdlock.Slots(2)
		mustLock(t, l)
		mustUnlock(t, l)
		must(t)(client.RoleRevokePermission(ctx, "worker", "/no-tail~tail", ""))
	})
}

// TestShareWithoutTheTail: who may not read the tail cannot share the lock, is told so, and leaves
// nothing.
func TestShareWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	inBoth(t, etcdtest.Dial(t, newWorker(t, s, "/no-tail")), "/no-tail", ttl, func(t *testing.T, l *etcdlock.Lock) {
		client, ctx := s.Client(t), etcdtest.Context(t)
		l.Mode = etcdlock.Shared
		for what, lock := range map[string]func(context.Context) (*etcdlock.Held, error){"Lock": l.Lock, "TryLock": l.TryLock} {
			if _, err := lock(ctx); !retry.IsDenied(err) || !strings.Contains(err.Error(), `needs to read "/no-tail~tail"`) {
				t.Errorf("%s: %v", what, err)
			}
		}
		awaitKeys(t, client, "/no-tail", 0)
		permit(t, s, "/no-tail~tail", authpb.READ)
		mustLock(t, l)
		mustUnlock(t, l)
		must(t)(client.RoleRevokePermission(ctx, "worker", "/no-tail~tail", ""))
	})
}

// TestSetOfSlots: a set has a slot of each of its locks, or of none.
func TestSetOfSlots(t *testing.T) {
	for _, try := range []bool{false, true} {
		client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
		session := newSession(t, client)
		set := setIn(t, session, "set", "/a", "/b", "/c")
		set.Mode = etcdlock.Slots(2)
		lock := set.Lock
		if try {
			lock = set.TryLock
		}
		last := 0
		for range 3 {
			held, err := lock(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if keys := etcdtest.Keys(t, client, ""); len(keys) != 6 {
				t.Errorf("%v", keys)
			}
			if a, b := held.Token("/a"), held.Token("/b"); a >= b {
				t.Errorf("tokens %d and %d: they were not taken one after another", a, b)
			}
			for i, is := range held.IsHolder() {
				if !applied(t, client, is) {
					t.Errorf("it does not hold the lock %d", i)
				}
			}
			must(t)(client.Delete(ctx, "/applied"))
			last = held.Slot("/b")
			must(t)(nil, held.Unlock(ctx))
			awaitKeys(t, client, "", 0)
		}
		// Another one has the slot of the last time, and one is free.
		inside := fill(t, client, "/b", 2)
		if inside[0].Slot() != last {
			slices.Reverse(inside)
		}
		free := inside[1].Slot()
		must(t)(nil, inside[1].Unlock(ctx))
		if held, err := lock(ctx); err != nil || held.Slot("/b") != free {
			t.Errorf("slot %d is free: %v, slot %d", free, err, held.Slot("/b"))
		}
		if err := set.Unlock(ctx); err != nil {
			t.Errorf("Unlock: %v", err)
		}
		inside[1] = mustLock(t, newSitter(t, client, "/b", "inside again", 2))
		before := len(etcdtest.Keys(t, client, ""))
		var busy *etcdlock.BusyError
		if _, err := set.TryLock(ctx); !errors.As(err, &busy) || busy.Key != "/b" {
			t.Errorf("TryLock: %v", err)
		}
		awaitKeys(t, client, "", before)
		got := make(chan *etcdlock.HeldSet, 1)
		waits := make(chan struct{}, 8)
		set.OnWait = func() { waits <- struct{}{} }
		go func() {
			held, err := set.Lock(ctx)
			if err != nil {
				t.Error(err)
			}
			got <- held
		}()
		<-waits
		awaitKeys(t, client, "/a", 2)
		awaitKeys(t, client, "/c", 0)
		must(t)(nil, inside[1].Unlock(ctx))
		held := <-got
		must(t)(client.Delete(ctx, "/c/=2#", clientv3.WithPrefix()))
		if lost := awaitLoss(t, held.Context(ctx)); lost.Key != "/c" || lost.Reason != etcdlock.SlotLost {
			t.Errorf("%v", lost)
		}
		select {
		case <-held.Expired():
		case <-time.After(10 * time.Second):
			t.Error("a slot was deleted, and the set has not expired")
		}
		if err := held.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("Unlock: %v", err)
		}
		must(t)(nil, inside[0].Unlock(ctx))
		awaitKeys(t, client, "", 0)
		// In another mode nothing is taken.
		fill(t, client, "/b", 2)
		for _, mode := range []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Shared, etcdlock.Slots(3)} {
			set.Mode = mode
			var other *etcdlock.ModeError
			if _, err := lock(ctx); !errors.As(err, &other) || other.Key != "/b" || other.Want != mode || other.Have != etcdlock.Slots(2) {
				t.Errorf("%v: %v", mode, err)
			}
			awaitKeys(t, client, "", 4)
		}
	}
}

// TestNextForASlotEnds: who is next, and closes its lock or its session, leaves at once, and is not
// waited for.
func TestNextForASlotEnds(t *testing.T) {
	etcdtest.NoLeaks(t)
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/next-ends", ttl, func(t *testing.T, l *etcdlock.Lock) {
		for _, name := range []string{"Close", "Session.Close"} {
			end := l.Close
			if name == "Session.Close" { // that is the last one
				end = l.Session().Close
			}
			inside := fill(t, client, l.Key(), 2)
			if err := inside[0].Refresh(ctx); err != nil {
				t.Errorf("Refresh: %v", err)
			}
			l.Mode = etcdlock.Slots(2)
			w := queue(t, l)
			behind := queue(t, newSitter(t, client, l.Key(), "behind", 2))
			if name == "Session.Close" {
				awaitNextKnown(t, l)
			}
			soon, cancel := context.WithTimeout(ctx, 10*time.Second)
			if err := end(soon); err != nil {
				t.Fatalf("%s does not end the wait: %v", name, err)
			}
			cancel()
			if err := <-w.got; !errors.Is(err, etcdlock.ErrClosed) {
				t.Errorf("%s: Lock: %v", name, err)
			}
			if keys := etcdtest.Keys(t, client, l.Key()+"/"); len(keys) != 5 {
				t.Fatalf("%s: it is in line still, or who is behind it is not: %v", name, keys)
			}
			behind.mustNotGet(t, 20*time.Millisecond)
			must(t)(nil, inside[0].Unlock(ctx))
			takeTurns(t, behind)
			must(t)(nil, inside[1].Unlock(ctx))
			must(t)(nil, behind.Close(ctx))
			awaitKeys(t, client, l.Key(), 0)
		}
		awaitNoWatch(t, l)
	})
}

// TestSlotsCompacted: where the history of the line is gone, those who lost their neighbours go on
// in order.
func TestSlotsCompacted(t *testing.T) {
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	const key, n, many = "/slots-compacted", 3, 40
	session := newSession(t, client)
	inside := fill(t, client, key, n)
	var all, stay []*waiter
	for i := range many {
		all = append(all, queue(t, sitterIn(t, session, key, fmt.Sprint(i), n)))
	}
	must(t)(client.Compact(ctx, revisionOf(t, client), clientv3.WithCompactPhysical()))
	for i, w := range all {
		if i%2 == 0 {
			stay = append(stay, w)
		} else {
			w.mustLeave(t)
		}
	}
	must(t)(nil, inside[0].Unlock(ctx))
	takeTurns(t, stay...)
	must(t)(nil, inside[1].Unlock(ctx))
	must(t)(nil, inside[2].Unlock(ctx))
	awaitKeys(t, client, key, 0)
}

// TestSlotsOfLocksBelow: semaphores of all sizes whose names begin alike have nothing to do with
// each other.
func TestSlotsOfLocksBelow(t *testing.T) {
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	keys := map[string]int{"/p": 2, "/p/a": 12, "/p/=2": 3, "/p/=12": 2, "/p/zz": 3, "/p2": 120, "/p/a/b": 120}
	inside := make(map[string][]grip)
	waiting := make(map[string][]*waiter)
	for key, n := range keys {
		slots := make(map[int]bool)
		for i := range n {
			held := mustLock(t, sitterIn(t, session, key, fmt.Sprint(i), n))
			if slots[held.Slot()] {
				t.Errorf("%s: slot %d is taken twice", key, held.Slot())
			}
			slots[held.Slot()] = true
			inside[key] = append(inside[key], held)
		}
	}
	for key, n := range keys {
		l := sitterIn(t, session, key, "tries", n)
		if _, err := l.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
			t.Errorf("%s: TryLock: %v", key, err)
		}
		for i := range 2 {
			waiting[key] = append(waiting[key], queue(t, sitterIn(t, session, key, fmt.Sprint("waits ", i), n)))
		}
	}
	for key := range keys {
		for i, w := range waiting[key] {
			w.mustNotGet(t, 10*time.Millisecond)
			must(t)(nil, inside[key][i].Unlock(ctx))
			w.mustGet(t)
			if w.held.Slot() != inside[key][i].Slot() {
				t.Errorf("%s: slot %d, not %d", key, w.held.Slot(), inside[key][i].Slot())
			}
		}
		for _, w := range waiting[key] {
			mustUnlock(t, w.Lock)
		}
		for _, one := range inside[key][2:] {
			must(t)(nil, one.Unlock(ctx))
		}
	}
	awaitKeys(t, client, "", 0)
}

// TestModeChangesToSlots: between two calls of Lock the mode may change; what is held stays as it
// is.
func TestModeChangesToSlots(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/mode-changes", ttl, func(t *testing.T, l *etcdlock.Lock) {
		modes := []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Slots(2), etcdlock.Shared, etcdlock.Slots(120), etcdlock.Slots(12), etcdlock.Exclusive}
		for i, mode := range modes {
			l.Mode = mode
			held := mustLock(t, l)
			slots := max(int(mode), 0)
			if held.Mode() != mode || held.Slot() >= max(slots, 1) {
				t.Errorf("%v is %v, slot %d", mode, held.Mode(), held.Slot())
			}
			for _, kv := range wire.Places(l.Key(), etcdtest.Keys(t, client, l.Key()+"/")) {
				if says, err := record.Parse(kv.Value); err != nil || says.Slots != slots {
					t.Errorf("%v: the record says %d slots, %v", mode, says.Slots, err)
				}
			}
			l.Mode = modes[(i+1)%len(modes)]
			if l.Mode != mode {
				if _, err := l.Lock(ctx); err == nil || errors.Is(err, etcdlock.ErrMode) {
					t.Errorf("what is held as %v was handed out as %v: %v", mode, l.Mode, err)
				}
			}
			l.Mode = mode
			if again := mustLock(t, l); again.Held != held.Held {
				t.Error("it was not the same")
			}
			mustUnlock(t, l)
			awaitKeys(t, client, l.Key(), 0)
		}
	})
}

// TestSlotsByMany: contenders take slots at random, and some are stopped while they wait, beside a
// Mutex: never more than there are slots, each has one of its own, and tokens grow from holder to
// holder of a slot.
func TestSlotsByMany(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	const key, n = "/slots-by-many", 3
	var (
		mu      sync.Mutex
		inside  [n]bool
		alone   bool
		newest  [n]int64
		last    int64 // of the Mutex
		most    atomic.Int32
		holders atomic.Int32
		wg      sync.WaitGroup

		all  = make(chan struct{}) // closed when all slots have been held at one time
		once sync.Once
	)
	for i := range 12 {
		l := newSitter(t, client, key, fmt.Sprint(i), n)
		if i%2 == 0 {
			l = sitterIn(t, session, key, fmt.Sprint(i), n)
		}
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for range 60 {
				waiting, cancel := context.WithCancel(ctx)
				if rng.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, cancel)
				}
				lock := l.Lock
				if rng.IntN(6) == 0 {
					lock = l.TryLock
				}
				held, err := lock(waiting)
				if cancel(); err != nil {
					if !errors.Is(err, context.Canceled) && !errors.Is(err, etcdlock.ErrBusy) {
						t.Error(err)
					}
					continue
				}
				slot := held.Slot()
				mu.Lock()
				if inside[slot] || alone || held.Token() <= max(newest[slot], last) {
					t.Errorf("slot %d: taken %v, beside a Mutex %v, token %d after %d and %d", slot, inside[slot], alone, held.Token(), newest[slot], last)
				}
				inside[slot], newest[slot] = true, held.Token()
				mu.Unlock()
				now := holders.Add(1)
				mu.Lock()
				most.Store(max(most.Load(), now))
				mu.Unlock()
				if now == n {
					once.Do(func() { close(all) })
				}
				select {
				case <-all: // the first ones stay until then
				case <-ctx.Done():
				}
				time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // the work
				holders.Add(-1)
				mu.Lock()
				inside[slot] = false
				mu.Unlock()
				if err := held.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	peer := newContender(t, client, key, mutex)
	wg.Go(func() {
		select {
		case <-all: // it would wait for those who stay, and others for it
		case <-ctx.Done():
		}
		for range 20 {
			token, err := peer.lock(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if alone, last = true, token; inside != [n]bool{} || token <= max(newest[0], newest[1], newest[2]) {
				t.Errorf("a Mutex beside %v, token %d after %v", inside, token, newest)
			}
			mu.Unlock()
			time.Sleep(time.Millisecond) // the work
			mu.Lock()
			alone = false
			mu.Unlock()
			if err := peer.unlock(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	t.Logf("up to %d at once", most.Load())
	must(t)(nil, session.Close(ctx))
	if most.Load() < 2 {
		t.Error("no two have had slots together")
	}
}
