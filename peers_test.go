package etcdlock_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestFirstComeFirstServedAcrossPeers starts contenders of all kinds one after the other and lets
// them go in turn.
func TestFirstComeFirstServedAcrossPeers(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key, n = "/peers", 30
	first := newContender(t, client, key, mutex)
	must(t)(first.lock(ctx))
	var (
		mu     sync.Mutex
		order  []int
		inside int
		wg     sync.WaitGroup
	)
	for i := range n {
		c := newContender(t, client, key, i%contenderKinds)
		wg.Go(func() {
			if _, err := c.lock(ctx); err != nil {
				t.Errorf("contender %d: %v", i, err)
				return
			}
			mu.Lock()
			if inside++; inside > 1 {
				t.Error("two inside")
			}
			order = append(order, i)
			mu.Unlock()

			mu.Lock()
			inside--
			mu.Unlock()
			if err := c.unlock(ctx); err != nil {
				t.Errorf("contender %d: %v", i, err)
			}
		})
		awaitKeys(t, client, key+"/", i+2)
	}
	if err := first.unlock(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for i, got := range order {
		if got != i {
			t.Fatalf("the turns went %v", order)
		}
	}
}

// TestTokensOverManyHandOvers checks 1,000 turns of 10 contenders, among them Mutexes that lock
// again and again under their session's one key, and what an old token is worth.
func TestTokensOverManyHandOvers(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key, contenders, turns = "/many", 10, 40 // -count=3 for more
	var (
		mu     sync.Mutex
		inside int
		last   int64
		wg     sync.WaitGroup
	)
	for i := range contenders {
		c := newContender(t, client, key, i%contenderKinds)
		wg.Go(func() {
			for range turns {
				token, err := c.lock(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if inside++; inside > 1 {
					t.Error("two inside")
				}
				if token <= last {
					t.Errorf("token %d after %d", token, last)
				}
				last = token
				inside--
				mu.Unlock()
				if err := c.unlock(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestMutexLocksAgainUnseen: a Mutex that unlocks and locks again does so under the same key.
// Whoever sees only the second one must not take it for the first: else each would wait for
// the other without end.
func TestMutexLocksAgainUnseen(t *testing.T) {
	s := etcdtest.Shared(t)
	gate, behind := s.Gated(t)
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if w, ok := answer.(*pb.WatchResponse); ok && len(w.Events) > 0 {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	ctx := etcdtest.Context(t)
	m := newContender(t, s.Client(t), "/unseen", mutex)
	must(t)(m.lock(ctx))
	l := newLock(t, behind, "/unseen", "ours")
	l.Session().RefreshInterval = 50 * time.Millisecond
	w := queue(t, l)
	if err := m.unlock(ctx); err != nil {
		t.Fatal(err)
	}
	again := inBackground(func() error { _, err := m.lock(ctx); return err })
	takeTurns(t, w)
	if err := <-again; err != nil {
		t.Fatal(err)
	}
}

func TestAnOldTokenGuardsNothing(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	l := newHolder(t, client, "/fence", "me")
	old := l.Holding().IsHolder()
	guarded := func(cmp clientv3.Cmp) bool { return applied(t, client, cmp) }
	if !guarded(old) {
		t.Error("the holder's own token was refused")
	}
	mustUnlock(t, l)
	if guarded(old) {
		t.Error("a write guarded by the token of nobody was applied")
	}
	mustLock(t, l)
	if guarded(old) || !guarded(l.Holding().IsHolder()) {
		t.Error("an old token was taken, or the new one was not")
	}
}

// TestNeighbours: locks whose keys are prefixes of each other do not disturb each other.
func TestNeighbours(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	b := newHolder(t, client, "n/2024-10", "b")
	a, a2 := newLock(t, client, "n", "a"), newLock(t, client, "n", "a2")
	mustLock(t, a)
	if _, err := a2.TryLock(ctx); err == nil {
		t.Error("two hold n")
	}
	w := queue(t, a2)
	mustUnlock(t, a)
	takeTurns(t, w)
	if _, err := a.TryLock(ctx); err != nil {
		t.Errorf("TryLock with a neighbour below: %v", err)
	}
	mustUnlock(t, b)
}

// TestFirstComeFirstServed starts 50 waiters one after the other; every third gives up.
func TestFirstComeFirstServed(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key, n = "/fifo", 50
	first := newHolder(t, client, key, "first")
	var (
		mu    sync.Mutex
		order []int
		wg    sync.WaitGroup
		gone  []*waiter
	)
	for i := range n {
		w := queue(t, newLock(t, client, key, fmt.Sprint(i)))
		if i%3 == 2 {
			gone = append(gone, w)
		}
		wg.Go(func() {
			if err := <-w.got; err != nil {
				if i%3 != 2 {
					t.Errorf("waiter %d: %v", i, err)
				}
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if err := w.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, w := range gone {
		w.leave()
	}
	awaitKeys(t, client, key+"/", 1+n-len(gone))
	mustUnlock(t, first)
	wg.Wait()
	want := 0
	for _, got := range order {
		if want%3 == 2 {
			want++
		}
		if got != want {
			t.Fatalf("the turns went %v", order)
		}
		want++
	}
	if len(order) != n-len(gone) {
		t.Errorf("%d turns, want %d", len(order), n-len(gone))
	}
}

// TestForeignKey: if somebody creates the key by hand, a Lock waits until it is deleted.
func TestForeignKey(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	must(t)(client.Put(ctx, "/foreign", "by hand"))
	l := newLock(t, client, "/foreign", "me")
	if _, err := l.TryLock(ctx); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("TryLock: %v", err)
	}
	w := queue(t, l)
	w.mustNotGet(t, 50*time.Millisecond)
	must(t)(client.Delete(ctx, "/foreign"))
	w.mustGet(t)
}

// TestPlaceDeletedWhileWaiting: whose place is taken away joins again at the end.
func TestPlaceDeletedWhileWaiting(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	a, b := newLock(t, client, "/again", "a"), newLock(t, client, "/again", "b")
	mustLock(t, a)
	w := queue(t, b)
	must(t)(client.Delete(ctx, placeOf(t, client, "/again", "b").key))
	w.mustWait(t)
	mustUnlock(t, a)
	w.mustGet(t)
}
