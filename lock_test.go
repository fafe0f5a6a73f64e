package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestLockAndUnlock(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client := s.Client(t)
	l := newLock(t, client, "/example/lock", "host-a")
	ctx := etcdtest.Context(t)

	held := mustLock(t, l)
	got, err := client.Get(ctx, "/example/lock")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "host-a" {
		t.Fatalf("the lock's key holds %v, want the id", got.Kvs)
	}
	if got.Kvs[0].ModRevision != l.Holding().Token() {
		t.Errorf("token %d, the key's ModRevision is %d", l.Holding().Token(), got.Kvs[0].ModRevision)
	}
	if held.Err() != nil {
		t.Errorf("held ended: %v", context.Cause(held))
	}
	if again := mustLock(t, l); again.Err() != nil {
		t.Errorf("locked again, and it ended: %v", context.Cause(again))
	}
	mustUnlock(t, l)
	if !errors.Is(context.Cause(held), etcdlock.ErrNotHeld) {
		t.Errorf("after Unlock held ended with %v", context.Cause(held))
	}
	if err := l.Unlock(ctx); err != etcdlock.ErrNotHeld {
		t.Errorf("second Unlock: %v", err)
	}
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
	s.Empty(t)
}

func TestTokensGrowAndTurnsNeverOverlap(t *testing.T) {
	s := etcdtest.Shared(t)
	const contenders, turns = 10, 30
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		inside int
		last   int64
	)
	for i := range contenders {
		client := s.Client(t)
		l := newLock(t, client, "/tokens", fmt.Sprint(i))
		wg.Go(func() {
			for range turns {
				if _, err := l.Lock(etcdtest.Context(t)); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if inside++; inside > 1 {
					t.Error("two inside")
				}
				if l.Holding().Token() <= last {
					t.Errorf("token %d after %d", l.Holding().Token(), last)
				}
				last = l.Holding().Token()
				mu.Unlock()

				mu.Lock()
				inside--
				mu.Unlock()
				if err := l.Unlock(etcdtest.Context(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSharedByGoroutines: a Lock is one contender. Goroutines that share it all get the lock, and
// none of them hangs.
func TestSharedByGoroutines(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	shared, other := newLock(t, client, "/shared", "shared"), newLock(t, client, "/shared", "other")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				// Whoever unlocks first ends it for all: a Lock under way is then told so.
				_, err := shared.Lock(ctx)
				if err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("Lock: %v", err)
					return
				}
				shared.Holding().Remaining()
				shared.Holding().IsHolder()
				if err := shared.Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("Unlock: %v", err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if _, err := other.Lock(ctx); err != nil {
				t.Errorf("the other: %v", err)
				return
			}
			if err := other.Unlock(ctx); err != nil {
				t.Errorf("the other: %v", err)
			}
		}
	})
	wg.Wait()
	if err := errors.Join(shared.Close(ctx), other.Close(ctx)); err != nil {
		t.Error(err)
	}
	s.Empty(t)
}

// TestUnlockDuringARefresh: no false loss, and the lock does not come back.
func TestUnlockDuringARefresh(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	gate, client := s.Gated(t)
	renewing := make(chan struct{}, 8)
	gate.InterceptAnswers(func(method string, _ proto.Message) etcdtest.Verdict {
		if strings.HasSuffix(method, "LeaseKeepAlive") {
			renewing <- struct{}{}
			return etcdtest.HoldAnswer
		}
		return etcdtest.Pass
	})
	l := newLock(t, client, "/refreshing", "me")
	l.Session().RefreshInterval = 20 * time.Millisecond
	held := mustLock(t, l)
	<-renewing
	if err := l.Unlock(etcdtest.Context(t)); err != nil {
		t.Errorf("Unlock: %v", err)
	}
	if err := context.Cause(held); !errors.Is(err, etcdlock.ErrNotHeld) || errors.As(err, new(*etcdlock.LostError)) {
		t.Errorf("held ended with %v", err)
	}
	if left := etcdtest.Keys(t, s.Client(t), "/refreshing"); len(left) > 0 {
		t.Errorf("left in etcd: %v", left)
	}
}

func TestTryLock(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client := s.Client(t)
	a, b := newLock(t, client, "/try", "a"), newLock(t, client, "/try", "b")
	ctx := etcdtest.Context(t)
	must(t)(a.TryLock(ctx))
	_, err := b.TryLock(ctx)
	if !errors.Is(err, etcdlock.ErrBusy) {
		t.Fatalf("the lock is held, TryLock said %v", err)
	}
	mustUnlock(t, a)
	must(t)(b.TryLock(ctx))
	if a.Holding().Token() >= b.Holding().Token() {
		t.Errorf("token %d, then %d", a.Holding().Token(), b.Holding().Token())
	}
}
