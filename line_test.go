package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// TestNobodyReadsTheLine: to join a line, to be next, and to leave it, in any order and by hundreds
// at once, costs a number of requests that does not depend on how long it is, and none that goes
// through it. Those who stay have their turns in the order in which they came.
func TestNobodyReadsTheLine(t *testing.T) {
	const n = 300
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	holder := newHolder(t, s.Client(t), "/crowd", "holder")
	session := newSession(t, client)
	all := queueMany(t, session, "/crowd", n)
	if got := counted.ranges.Load(); got > 1 { // the first one finds no tail
		t.Errorf("%d waiters read the line %d times", n, got)
	}
	if got := counted.writes.Load(); got != n {
		t.Errorf("%d waiters made %d writes", n, got)
	}
	await(t, "all but the newest to know who is next, and to watch no more than themselves and who is before", func() (bool, any) {
		watches := all[0].Watches()
		return watches <= 2*n+1, watches
	})
	counted.reads.Store(0)
	began := time.Now()
	var stay, leave []*waiter
	for i, w := range all {
		if i%3 == 0 {
			stay = append(stay, w)
		} else {
			leave = append(leave, w)
		}
	}
	rand.Shuffle(len(leave), func(i, j int) { leave[i], leave[j] = leave[j], leave[i] })
	for _, w := range leave {
		w.leave()
	}
	for _, w := range leave {
		w.mustLeave(t)
	}
	awaitKeys(t, s.Client(t), "/crowd/", 1+len(stay))
	await(t, "all who stay to watch themselves and who is before", func() (bool, any) {
		watches := stay[0].Watches()
		return watches == 2*len(stay), watches
	})
	claims := counted.claims.Load() // as long as somebody holds the lock, they go through no line
	var last int64
	mustUnlock(t, holder)
	for _, w := range stay {
		w.mustGet(t)
		if w.Holding().Token() <= last {
			t.Errorf("token %d after %d", w.Holding().Token(), last)
		}
		last = w.Holding().Token()
		mustUnlock(t, w.Lock)
	}
	// Usually it takes half a second. A client that gets nothing for longer has to ask.
	took := time.Since(began)
	slower := 1 + int64(took/(500*time.Millisecond))
	if ranges, reads := counted.ranges.Load()+counted.claims.Load()-claims, counted.reads.Load(); ranges > slower*n/20 || reads > slower*8*n {
		t.Errorf("after %d had left, the line was read %d times, with %d reads in all, in %v", len(leave), ranges, reads, took)
	}
	awaitKeys(t, s.Client(t), "", 0)
}

// TestCrash: waiters that crash by hundreds, every second in line, leave a line that goes on in
// order, and is read by hardly anybody.
func TestCrash(t *testing.T) {
	const n = 100
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	holder := newHolder(t, s.Client(t), "/crash", "holder")
	stays, crashes := newSession(t, client), newSession(t, s.Client(t))
	var stay []*waiter
	for range n {
		stay = append(stay, queueMany(t, stays, "/crash", 1)...)
		queueMany(t, crashes, "/crash", 1)
	}
	queueMany(t, crashes, "/crash", 50) // the newest place, and so the tail, goes with them
	before := counted.ranges.Load()
	if err := crashes.Close(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	if got := len(etcdtest.Keys(t, s.Client(t), "/crash/")); got != 1+n {
		t.Errorf("%d in line, want %d", got, 1+n)
	}
	stay = append(stay, queueMany(t, stays, "/crash", 2)...)
	// All watch themselves and who is before.
	awaitWatches(t, stay[0].Lock, 2*len(stay))
	before += counted.claims.Load() // as long as somebody holds the lock, they go through no line
	mustUnlock(t, holder)
	takeTurns(t, stay...)
	if got := counted.ranges.Load() + counted.claims.Load() - before; got > 3 {
		t.Errorf("the line was read %d times", got)
	}
	awaitKeys(t, s.Client(t), "", 0)
}

// TestCompactedCrowd: where the tail's history is gone, those who lost their neighbours ask whether
// it is their turn, read the line, and go on in order.
func TestCompactedCrowd(t *testing.T) {
	const n = 30
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := newHolder(t, client, "/forgotten", "holder")
	all := queueMany(t, newSession(t, client), "/forgotten", n)
	must(t)(client.Compact(ctx, revisionOf(t, client), clientv3.WithCompactPhysical()))
	var stay []*waiter
	for i, w := range all {
		if i%2 == 0 {
			stay = append(stay, w)
			continue
		}
		w.leave()
		<-w.got
	}
	mustUnlock(t, holder)
	takeTurns(t, stay...)
	awaitKeys(t, client, "", 0)
}

// TestTailIsPutBack: who was the newest and leaves does not make the next one read the line.
func TestTailIsPutBack(t *testing.T) {
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	holder := newHolder(t, s.Client(t), "/tail", "holder")
	session := newSession(t, client)
	stay := queueMany(t, session, "/tail", 3)
	before := counted.ranges.Load()
	for range 20 {
		w := queueMany(t, session, "/tail", 1)[0]
		w.leave()
		<-w.got
	}
	stay = append(stay, queueMany(t, session, "/tail", 1)...)
	if got := counted.ranges.Load() - before; got != 0 {
		t.Errorf("the line was read %d times", got)
	}
	mustUnlock(t, holder)
	takeTurns(t, stay...)
	awaitKeys(t, s.Client(t), "", 0)
}

// TestGoneBeforeItWasSeen: where two take turns the tail's history is long, and nobody in it is
// there any more. Who finds that the place before it is gone, and has not seen it, makes a claim
// instead of going back there.
func TestGoneBeforeItWasSeen(t *testing.T) {
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	a, b := newLock(t, s.Client(t), "/turns", "a"), newLock(t, client, "/turns", "b")
	mustLock(t, a)
	for range 70 {
		w := queue(t, b)
		mustUnlock(t, a)
		w.mustGet(t)
		w = queue(t, a)
		mustUnlock(t, b)
		w.mustGet(t)
	}
	held, err := s.Client(t).Get(etcdtest.Context(t), "/turns")
	if err != nil || len(held.Kvs) == 0 {
		t.Fatal(held, err)
	}
	lease := clientv3.LeaseID(held.Kvs[0].Lease)
	counted.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if w, ok := request.(*pb.WatchRequest); ok && string(w.GetCreateRequest().GetKey()) == wire.LinkedPlace("/turns", lease, 1) {
			return etcdtest.HoldRequest
		}
		return counted.count(method, request)
	})
	w := queue(t, b)
	watch := counted.AwaitHeld(t)
	before := counted.history.Load()
	must(t)(s.Client(t).Revoke(etcdtest.Context(t), lease))
	if err := watch.Release(); err != nil {
		t.Fatal(err)
	}
	w.mustGet(t)
	if got := counted.history.Load() - before; got > 0 {
		t.Errorf("%d reads of what had been", got)
	}
	mustUnlock(t, b)
}

// TestLostAnswersReadNoLine: who leaves and gets no answer finds its place gone at the next try,
// and does not go through the line to see what became of it, although the lock is held under the
// lease it stood under.
func TestLostAnswersReadNoLine(t *testing.T) {
	const n = 20
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	session := newSession(t, client)
	holder := lockIn(t, session, "/unheard", "holder")
	mustLock(t, holder)
	all := queueMany(t, session, "/unheard", n)
	before, gets := counted.ranges.Load(), counted.gets.Load()
	var lost atomic.Int64
	counted.InterceptAnswers(func(_ string, message proto.Message) etcdtest.Verdict {
		if r, ok := message.(*pb.TxnResponse); ok && len(r.Responses) > 0 && r.Responses[0].GetResponseDeleteRange() != nil {
			lost.Add(1)
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	for _, w := range all {
		w.leave()
	}
	for _, w := range all {
		w.mustLeave(t)
	}
	await(t, "all who left to look whether anything is left", func() (bool, any) {
		got := counted.gets.Load() - gets
		return got >= n, got
	})
	if got := lost.Load(); got != n {
		t.Errorf("%d answers were lost, want %d", got, n)
	}
	counted.InterceptAnswers(nil)
	if got := counted.ranges.Load() - before; got != 0 {
		t.Errorf("%d who left read the line %d times", n, got)
	}
	mustUnlock(t, holder)
	awaitKeys(t, s.Client(t), "", 0)
}

// TestWithoutTheTail: who may not write the tail stands in line all the same, between those who
// may, first come first served.
func TestWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	narrow := etcdtest.Dial(t, newWorker(t, s, "/narrow"))
	client := s.Client(t)
	holder := newHolder(t, client, "/narrow", "holder")
	var line []*waiter
	for i := range 6 {
		c := client
		if i%2 == 0 {
			c = narrow
		}
		line = append(line, queue(t, newLock(t, c, "/narrow", fmt.Sprint(i))))
	}
	mustUnlock(t, holder)
	for i, w := range line {
		w.mustGet(t)
		for _, later := range line[i+1:] {
			later.mustNotGet(t, 0)
		}
		mustUnlock(t, w.Lock)
	}
	alone := newLock(t, narrow, "/narrow", "alone")
	for range 3 {
		held := mustLock(t, alone)
		if again := mustLock(t, alone); again.Err() != nil || held.Err() != nil {
			t.Error(context.Cause(held))
		}
		mustUnlock(t, alone)
	}
}

// TestNamesOfTails: a lock whose key another lock's tail would have is refused, and so are the
// other ends that are kept for such names. Elsewhere in a key they mean nothing.
func TestNamesOfTails(t *testing.T) {
	for _, end := range []string{"~tail", "~runs", "~since"} {
		if _, err := etcdlock.New(etcdtest.Shared(t).Client(t), "/a"+end, "me", ttl); err == nil || !strings.Contains(err.Error(), end) {
			t.Errorf("a key that ends in %s: %v", end, err)
		}
		if _, err := etcdlock.New(etcdtest.Shared(t).Client(t), "/a"+end+"/b", "me", ttl); err != nil {
			t.Error(err)
		}
	}
}

// TestTurnsInDisorder: contenders of sessions and with leases of their own, that come, try, leave
// early and crash as they like: never two inside, all get done, and nothing is left.
func TestTurnsInDisorder(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	ctx := etcdtest.Context(t)
	sessions := []*etcdlock.Session{newSession(t, s.Client(t)), newSession(t, s.Client(t))}
	var (
		inside atomic.Int32
		last   atomic.Int64
		wg     sync.WaitGroup
	)
	for i := range 12 {
		l := newLock(t, s.Client(t), "/disorder", fmt.Sprint(i))
		if i%3 != 0 {
			l = lockIn(t, sessions[i%2], "/disorder", fmt.Sprint(i))
		}
		wg.Go(func() {
			for done := 0; done < 20; {
				wait, cancel := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(20*time.Millisecond))))
				if rand.N(3) > 0 {
					wait = ctx
				}
				var err error
				if rand.N(4) == 0 {
					_, err = l.TryLock(wait)
				} else {
					_, err = l.Lock(wait)
				}
				cancel()
				if err != nil {
					if ctx.Err() != nil {
						t.Error(err)
						return
					}
					continue
				}
				if inside.Add(1) != 1 {
					t.Error("two inside")
				}
				if before := last.Swap(l.Holding().Token()); before >= l.Holding().Token() {
					t.Errorf("token %d after %d", l.Holding().Token(), before)
				}
				inside.Add(-1)
				if err := l.Unlock(ctx); err != nil {
					t.Error(err)
				}
				done++
			}
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	awaitKeys(t, s.Client(t), "", 0)
	for _, session := range sessions {
		if err := session.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

// TestOverwrittenBeforeAnother: a place that an operator has overwritten did not hold the lock. Who
// stood behind it does not take the lock from the holder, whose key the operator has deleted as
// well.
func TestOverwrittenBeforeAnother(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	h, p, w := newLock(t, client, "/hands", "h"), newLock(t, s.Client(t), "/hands", "p"), newLock(t, s.Client(t), "/hands", "w")
	mustLock(t, h)
	overwritten := queue(t, p)
	last := queue(t, w)
	line := etcdtest.Keys(t, client, "/hands/")
	if len(line) != 3 {
		t.Fatal(line)
	}
	awaitWatches(t, p, 2) // itself and who is before
	awaitWatches(t, w, 2)
	must(t)(client.Delete(ctx, "/hands"))
	must(t)(client.Put(ctx, string(line[1].Key), "an operator's", clientv3.WithIgnoreLease()))
	await(t, "it to take another place", func() (bool, any) {
		now := etcdtest.Keys(t, client, "/hands/")
		return len(now) == 3 && string(now[1].Key) == string(line[2].Key), now
	})
	before := revisionOf(t, client)
	if err := h.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("the holder's Unlock: %v", err)
	}
	last.mustGet(t)
	if w.Holding().Token() <= before {
		t.Errorf("it got the lock in revision %d, and the holder had it until %d", w.Holding().Token(), before)
	}
	mustUnlock(t, w)
	overwritten.mustGet(t)
	mustUnlock(t, p)
}

// TestOverwrittenWhileWaiting: only a write that leaves a place as it is grants the lock.
func TestOverwrittenWhileWaiting(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	holder := newHolder(t, client, "/overwritten", "holder")
	w := queue(t, newLock(t, client, "/overwritten", "waiter"))
	must(t)(client.Put(etcdtest.Context(t), placeOf(t, client, "/overwritten", "waiter").key, "by hand", clientv3.WithIgnoreLease()))
	await(t, "another place in line", func() (bool, any) {
		w.mustNotGet(t, 0)
		line := etcdtest.Keys(t, client, "/overwritten/")
		return len(line) == 2 && string(line[0].Value) != "by hand" && string(line[1].Value) != "by hand", line
	})
	mustUnlock(t, holder)
	w.mustGet(t)
}
