package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// ttl is long enough that no stall of the machine that runs the tests ends it.
const ttl = 60 * time.Second

// newLock returns a lock that is closed when the test ends.
func newLock(t testing.TB, client *clientv3.Client, key, id string) *etcdlock.Lock {
	t.Helper()
	return timed(t, client, key, id, ttl)
}

// timed is newLock with a TTL of its own, for tests that wait for it.
func timed(t testing.TB, client *clientv3.Client, key, id string, ttl time.Duration) *etcdlock.Lock {
	t.Helper()
	l, err := etcdlock.New(client, key, id, ttl)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		l.Close(ctx)
	})
	return l
}

// A grip is a lock that is held, and the context of the work under it.
type grip struct {
	*etcdlock.Held
	context.Context
}

func mustLock(t testing.TB, l *etcdlock.Lock) grip {
	t.Helper()
	held, err := gripOf(l.Lock(etcdtest.Context(t)))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// gripOf completes what Lock returns.
func gripOf(held *etcdlock.Held, err error) (grip, error) {
	return grip{held, held.Context(context.Background())}, err
}

func mustUnlock(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	if err := l.Unlock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

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
	gate := etcdtest.NewGate(t, s.Endpoint())
	renewing := make(chan struct{}, 8)
	gate.InterceptAnswers(func(method string, _ proto.Message) etcdtest.Verdict {
		if strings.HasSuffix(method, "LeaseKeepAlive") {
			renewing <- struct{}{}
			return etcdtest.HoldAnswer
		}
		return etcdtest.Pass
	})
	c := s.Config()
	c.Endpoints = []string{gate.Endpoint()}
	client := etcdtest.Dial(t, c)
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
	if resp, err := s.Client(t).Get(etcdtest.Context(t), "/refreshing", clientv3.WithPrefix()); err != nil || len(resp.Kvs) > 0 {
		t.Errorf("left in etcd: %v, %v", resp, err)
	}
}

func TestTryLock(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client := s.Client(t)
	a, b := newLock(t, client, "/try", "a"), newLock(t, client, "/try", "b")
	ctx := etcdtest.Context(t)
	if _, err := a.TryLock(ctx); err != nil {
		t.Fatal(err)
	}
	_, err := b.TryLock(ctx)
	if !errors.Is(err, etcdlock.ErrBusy) {
		t.Fatalf("the lock is held, TryLock said %v", err)
	}
	mustUnlock(t, a)
	if _, err := b.TryLock(ctx); err != nil {
		t.Fatal(err)
	}
	if a.Holding().Token() >= b.Holding().Token() {
		t.Errorf("token %d, then %d", a.Holding().Token(), b.Holding().Token())
	}
}
