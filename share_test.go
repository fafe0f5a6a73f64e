package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestShared: those who share a lock have it together, first come first served with those who do
// not, and woken by one commit; nothing is left.
func TestShared(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client := s.Client(t)
	session := newSession(t, client)
	const key = "/shared"
	var first []grip
	for i := range 3 {
		first = append(first, mustLock(t, newSharer(t, client, key, fmt.Sprint("first ", i))))
	}
	first = append(first, mustLock(t, sharerIn(t, session, key, "in a session")))
	writer := queue(t, newLock(t, client, key, "writer"))
	var second []*waiter
	for i := range 3 {
		second = append(second, queue(t, newSharer(t, client, key, fmt.Sprint("second ", i))))
	}
	second = append(second, queue(t, sharerIn(t, session, key, "in a session, later")))
	next := queue(t, lockIn(t, session, key, "next writer"))
	last := queue(t, newSharer(t, client, key, "last"))

	newest := int64(0)
	for _, one := range first {
		if one.Mode() != etcdlock.Shared || one.Token() == 0 || !applied(t, client, one.IsHolder()) {
			t.Errorf("%v, token %d", one.Mode(), one.Token())
		}
		newest = max(newest, one.Token())
		writer.mustNotGet(t, 10*time.Millisecond)
		must(t)(nil, one.Unlock(etcdtest.Context(t)))
		if applied(t, client, one.IsHolder()) {
			t.Error("what was given back is held")
		}
	}
	writer.mustGet(t)
	if writer.held.Token() <= newest {
		t.Errorf("token %d after %d", writer.held.Token(), newest)
	}
	second[0].mustNotGet(t, 50*time.Millisecond)
	before := revisionOf(t, client)
	mustUnlock(t, writer.Lock)
	for _, one := range second {
		one.mustGet(t)
		if token := one.held.Token(); token <= writer.held.Token() || token > before+1 {
			t.Errorf("token %d after %d", token, writer.held.Token())
		}
	}
	if now := revisionOf(t, client); now != before+1 {
		t.Errorf("%d commits for four who share the lock", now-before)
	}
	for _, one := range second {
		next.mustNotGet(t, 10*time.Millisecond)
		mustUnlock(t, one.Lock)
	}
	takeTurns(t, next, last)
	for _, one := range append(second, writer, last) {
		must(t)(nil, one.Close(etcdtest.Context(t)))
	}
	must(t)(nil, session.Close(etcdtest.Context(t)))
	awaitKeys(t, client, key, 0)
}

// TestSharedBehindPeers: a Mutex and v3lock wait for those who share the lock, and these for them.
func TestSharedBehindPeers(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for kind := range contenderKinds {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			key := fmt.Sprint("/shared-peers/", kind)
			a, b := mustLock(t, newSharer(t, client, key, "a")), mustLock(t, newSharer(t, client, key, "b"))
			peer := newContender(t, client, key, kind)
			got := make(chan int64, 1)
			go func() {
				token, err := peer.lock(ctx)
				if err != nil {
					t.Error(err)
				}
				got <- token
			}()
			awaitKeys(t, client, key+"/", 3)
			later := queue(t, newSharer(t, client, key, "later"))
			must(t)(nil, a.Unlock(ctx))
			select {
			case <-got:
				t.Fatal("it has the lock beside one who shares it")
			case <-time.After(50 * time.Millisecond):
			}
			must(t)(nil, b.Unlock(ctx))
			token := <-got
			later.mustNotGet(t, 50*time.Millisecond)
			must(t)(nil, peer.unlock(ctx))
			later.mustGet(t)
			if later.held.Token() <= token {
				t.Errorf("token %d after %d", later.held.Token(), token)
			}
			mustUnlock(t, later.Lock)
		})
	}
}

// TestBusyNames: who tries is told who shares the lock, up to four of them, and not who waits to.
func TestBusyNames(t *testing.T) {
	client, ctx, key := etcdtest.Shared(t).Client(t), etcdtest.Context(t), "/busy-names"
	l := newLock(t, client, key, "tries")
	says := func(want string, holders ...string) {
		t.Helper()
		_, err := l.TryLock(ctx)
		var busy *etcdlock.BusyError
		if !errors.As(err, &busy) || err.Error() != fmt.Sprintf("lock %q is %s", key, want) || !slices.Equal(busy.Holders, holders) {
			t.Errorf("%v, held by %q; want %q", err, busy.Holders, holders)
		}
	}
	a := mustLock(t, newSharer(t, client, key, "a"))
	says(`shared by "a"`, "a")
	mustLock(t, newSharer(t, client, key, "b"))
	writer := queue(t, newLock(t, client, key, "writer"))
	late := queue(t, newSharer(t, client, key, "late"))
	says(`shared by "a", "b"`, "a", "b")
	l.Mode = etcdlock.Shared
	says(`shared by "a", "b", and somebody waits who wants it alone`, "a", "b")
	l.Mode = etcdlock.Exclusive
	writer.mustLeave(t)
	late.mustGet(t)
	for _, id := range []string{"d", "e"} {
		mustLock(t, newSharer(t, client, key, id))
	}
	says(`shared by "a", "b", "late", "d" and others`, "a", "b", "late", "d")
	must(t)(nil, a.Unlock(ctx))
	says(`shared by "b", "late", "d", "e"`, "b", "late", "d", "e")
	newHolder(t, client, key+"/below", "another lock")
	says("not free: somebody shares it, or stands in line for it")
}

// TestTryShared: it waits for nobody who has the lock alone, and does not mind keys that are no
// places of it.
func TestTryShared(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/try-shared", ttl, func(t *testing.T, l *etcdlock.Lock) {
		other := newHolder(t, client, l.Key(), "other")
		l.Mode = etcdlock.Shared
		var busy *etcdlock.BusyError
		if _, err := l.TryLock(ctx); !errors.As(err, &busy) || busy.Holder != "other" {
			t.Errorf("TryLock beside a holder: %v", err)
		}
		mustUnlock(t, other)
		newHolder(t, client, l.Key()+"/below", "another lock")
		sharer := mustLock(t, newSharer(t, client, l.Key(), "sharer"))
		if _, err := l.TryLock(ctx); err != nil {
			t.Errorf("TryLock beside one who shares the lock: %v", err)
		}
		if _, err := other.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
			t.Errorf("TryLock beside two who share the lock: %v", err)
		}
		l.Mode = etcdlock.Exclusive
		if _, err := l.Lock(ctx); err == nil {
			t.Error("a lock that is shared was handed out as one that is not")
		}
		mustUnlock(t, l)
		writer := queue(t, other)
		l.Mode = etcdlock.Shared
		if _, err := l.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
			t.Errorf("TryLock before one who waits: %v", err)
		}
		must(t)(nil, sharer.Unlock(ctx))
		takeTurns(t, writer)
		must(t)(nil, l.Close(ctx))
		for _, no := range []etcdlock.Mode{-2, 1, 1001} {
			l.Mode = no
			if _, err := l.Lock(ctx); err == nil {
				t.Errorf("there is a mode %d", no)
			}
		}
	})
}

// TestSharedAndForced: an operator's hand ends the holding that it touches, and no other.
func TestSharedAndForced(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	inBoth(t, client, "/shared-forced", ttl, func(t *testing.T, l *etcdlock.Lock) {
		other := mustLock(t, newSharer(t, client, l.Key(), "other"))
		for name, one := range map[string]struct {
			hand   func(place string) error
			reason etcdlock.Reason
		}{
			"deleted": {func(place string) error {
				_, err := client.Delete(ctx, place)
				return err
			}, etcdlock.PlaceLost},
			"overwritten": {func(place string) error {
				_, err := client.Put(ctx, place, "x", clientv3.WithIgnoreLease())
				return err
			}, etcdlock.KeyOverwritten},
			// Then it is not a place any more.
			"overwritten, without its lease": {func(place string) error {
				_, err := client.Put(ctx, place, "x")
				return err
			}, etcdlock.PlaceLost},
		} {
			l.Mode = etcdlock.Shared
			held := mustLock(t, l)
			must(t)(client.Put(ctx, l.Key(), "by hand")) // keeps out whoever is not in yet
			if err := held.Refresh(ctx); err != nil {
				t.Errorf("%s: K made by hand: %v", name, err)
			}
			late := queue(t, newSharer(t, client, l.Key(), "late"))
			must(t)(client.Delete(ctx, l.Key()))
			late.mustGet(t)
			must(t)(nil, one.hand(placeOf(t, client, l.Key(), l.ID()).key))
			if lost := awaitLoss(t, held); lost.Reason != one.reason {
				t.Errorf("%s: %v", name, lost)
			}
			var lost *etcdlock.LostError
			if err := l.Unlock(ctx); !errors.As(err, &lost) {
				t.Errorf("%s: Unlock: %v", name, err)
			}
			mustUnlock(t, late.Lock)
			if err := other.Refresh(ctx); err != nil {
				t.Errorf("%s: the other: %v", name, err)
			}
		}
		must(t)(nil, other.Unlock(ctx))
		mustLock(t, newLock(t, client, l.Key(), "after"))
	})
}

// TestSetChangesMode: a set that has shared its locks takes them alone the next time, and the other
// way round.
func TestSetChangesMode(t *testing.T) {
	for _, try := range []bool{false, true} {
		client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
		set, err := newSession(t, client).NewSet([]string{"/a", "/b"}, "set")
		must(t)(nil, err)
		lock := set.Lock
		if try {
			lock = set.TryLock
		}
		set.Mode = etcdlock.Shared
		must(t)(lock(ctx))
		sharer := mustLock(t, newSharer(t, client, "/a", "sharer"))
		must(t)(nil, set.Unlock(ctx))
		set.Mode = etcdlock.Exclusive
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		if _, err := lock(short); err == nil {
			t.Errorf("try %v: the set has a lock alone that another shares", try)
		}
		cancel()
		must(t)(nil, sharer.Unlock(ctx))
		must(t)(lock(ctx))
		set.Mode = etcdlock.Shared
		if _, err := lock(ctx); err == nil {
			t.Errorf("try %v: a set that has its locks alone was handed out as one that shares them", try)
		}
		must(t)(nil, set.Unlock(ctx))
		must(t)(lock(ctx))
		must(t)(mustLock(t, newSharer(t, client, "/b", "sharer")), nil)
	}
}

// mustBeBetween checks that one who shares the lock gets it after its holder, and then one who
// wants it alone.
func mustBeBetween(t testing.TB, holder *etcdlock.Lock, sharer, alone *waiter) {
	t.Helper()
	mustUnlock(t, holder)
	sharer.mustGet(t)
	alone.mustNotGet(t, 100*time.Millisecond)
	mustUnlock(t, sharer.Lock)
	takeTurns(t, alone)
}

// TestSharedBehindWhoLeaves: those who have left the line let nobody pass one who shares the lock.
func TestSharedBehindWhoLeaves(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	counting, counted := newCensus(t, s)
	const key = "/shared-leaves"
	holder := passedOn(t, client, key)
	y := queue(t, newLock(t, client, key, "y"))
	sharer := queue(t, newSharer(t, client, key, "sharer"))
	z := queue(t, newLock(t, counting, key, "z"))
	before := placeOf(t, client, key, "sharer").key
	y.mustLeave(t)
	// The history tells one that has seen y, and the line tells one that has not yet.
	await(t, "z to find out who is before it now", func() (bool, any) {
		return counted.history.Load() > 0 || counted.watches(before), "it does not"
	})
	z.mustLeave(t)
	mustBeBetween(t, holder.Lock, sharer, queue(t, newLock(t, client, key, "x")))
}

// TestSharedAndTheTail: whoever deletes the tail, writes it, or puts it again, lets nobody pass one
// who shares the lock.
func TestSharedAndTheTail(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	for name, before := range map[string]string{"put again": "", "garbage": "x"} {
		key := "/shared-tail/" + name
		if before != "" {
			must(t)(client.Put(ctx, key+"~tail", before))
		}
		holder := passedOn(t, client, key)
		queue(t, newLock(t, client, key, "y")).mustLeave(t)
		tail, err := client.Get(ctx, key+"~tail")
		if err != nil {
			t.Fatal(err)
		}
		must(t)(client.Delete(ctx, key+"~tail"))
		sharer := queue(t, newSharer(t, client, key, "sharer"))
		for _, kv := range tail.Kvs {
			must(t)(client.Put(ctx, key+"~tail", string(kv.Value)))
		}
		mustBeBetween(t, holder.Lock, sharer, queue(t, newLock(t, client, key, "x")))
		must(t)(client.Put(ctx, key+"~tail", "y"))
		free := newLock(t, client, key, "free")
		if _, err := free.TryLock(ctx); err != nil {
			t.Fatal(err)
		}
		sharer = queue(t, newSharer(t, client, key, "sharer"))
		mustBeBetween(t, free, sharer, queue(t, newLock(t, client, key, "x")))
		must(t)(client.Delete(ctx, key+"~tail"))
	}
}

// TestSharedAndTouched: a place that somebody has written as it was does not look as if it had
// held the lock alone.
func TestSharedAndTouched(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	const key = "/shared-touched"
	a, b := mustLock(t, newSharer(t, client, key, "a")), mustLock(t, newSharer(t, client, key, "b"))
	x := queue(t, newLock(t, client, key, "x"))
	awaitWatches(t, x.Lock, 3)
	at := placeOf(t, client, key, "b").key
	kv, err := client.Get(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	must(t)(client.Put(ctx, at, string(kv.Kvs[0].Value), clientv3.WithIgnoreLease()))
	awaitLoss(t, b)
	b.Unlock(ctx)
	x.mustNotGet(t, 100*time.Millisecond)
	must(t)(nil, a.Unlock(ctx))
	takeTurns(t, x)
}

// TestSharedInAMovingLine: who wants to share a lock gets into a line that moves all the time.
func TestSharedInAMovingLine(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key = "/shared-moving"
	var over atomic.Bool
	var wg sync.WaitGroup
	for i := range 6 {
		l := newLock(t, client, key, fmt.Sprint(i))
		wg.Go(func() {
			for !over.Load() {
				if _, err := l.Lock(ctx); err != nil {
					t.Error(err)
					return
				}
				l.Unlock(ctx)
			}
		})
	}
	sharer := newSharer(t, client, key, "sharer")
	for range 30 {
		mustLock(t, sharer)
		mustUnlock(t, sharer)
	}
	over.Store(true)
	wg.Wait()
}

// TestUnknownOutcomesOfSharing loses requests or answers of those who share a lock: nobody else
// has it meanwhile, and nothing is left.
func TestUnknownOutcomesOfSharing(t *testing.T) {
	t.Parallel()
	forVerdicts(t, []string{"Share", "ShareBehindHolder", "ShareOldest", "Remove", "SharedLineRead"}, func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict) {
		ctx := etcdtest.Context(t)
		gate, behind := s.Gated(t)
		client, key := s.Client(t), "/unknown-shared"
		session := newSession(t, behind)
		if kind == "ShareOldest" || kind == "SharedLineRead" {
			newHolder(t, client, key+"/below", "another lock")
		}
		sent := kind
		if kind == "SharedLineRead" {
			sent = "Read"
		}
		for _, l := range []*etcdlock.Lock{newSharer(t, behind, key, "own"), sharerIn(t, session, key, "in a session")} {
			writer := newHolder(t, client, key, "writer")
			intercept(gate, 1, verdict, sent)
			sharer := queue(t, l)
			mustUnlock(t, writer)
			sharer.mustGet(t)
			behindIt := queue(t, writer)
			behindIt.mustNotGet(t, 20*time.Millisecond)
			err := l.Unlock(ctx)
			if err != nil && !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Error(err)
			}
			// A read is given up.
			isRead := sent == "Read" || kind == "ShareBehindHolder" || kind == "ShareOldest"
			if !isRead && (verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer) {
				gate.AwaitHeld(t).Release()
			}
			takeTurns(t, behindIt)
			must(t)(nil, l.Close(ctx))
		}
		must(t)(nil, session.Close(ctx))
		awaitKeys(t, client, key, len(etcdtest.Keys(t, client, key+"/below")))
	})
}

// TestSharedByMany: contenders of all kinds take turns at random, and some are stopped while they
// wait: who shares the lock is beside nobody who does not, and tokens grow.
func TestSharedByMany(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	const key = "/by-many"
	var (
		sharers, writers atomic.Int32
		together         atomic.Int32 // the most who have shared it
		mu               sync.Mutex
		newest, alone    int64
		wg               sync.WaitGroup
	)
	check := func(token int64, shares bool) {
		mu.Lock()
		defer mu.Unlock()
		if token <= alone || !shares && token <= newest {
			t.Errorf("token %d after %d, and %d of one alone", token, newest, alone)
		}
		if newest = max(newest, token); !shares {
			alone = token
		}
	}
	for i := range 12 {
		shares := i%3 != 0
		l := newLock(t, client, key, fmt.Sprint(i))
		if i%2 == 0 {
			l = lockIn(t, session, key, fmt.Sprint(i))
		}
		if shares {
			l.Mode = etcdlock.Shared
		}
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for range 60 {
				waiting, cancel := context.WithCancel(ctx)
				if rng.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rng.IntN(20))*time.Millisecond, cancel)
				}
				held, err := l.Lock(waiting)
				if cancel(); err != nil {
					if !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
					continue
				}
				if check(held.Token(), shares); shares {
					if n := sharers.Add(1); n > together.Load() {
						together.Store(n)
					}
				} else if writers.Add(1) > 1 {
					t.Error("two have the lock alone")
				}
				time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // the work
				if shares {
					if writers.Load() > 0 {
						t.Error("one shares the lock that another has alone")
					}
					sharers.Add(-1)
				} else {
					if sharers.Load() > 0 {
						t.Error("one has the lock alone that another shares")
					}
					writers.Add(-1)
				}
				if err := held.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("up to %d at once", together.Load())
	must(t)(nil, session.Close(ctx))
	if together.Load() < 2 {
		t.Error("nobody has shared it")
	}
}
