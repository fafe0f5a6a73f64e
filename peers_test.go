package etcdlock_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	v3lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A contending is one way of getting the lock and giving it back.
type contending interface {
	lock(ctx context.Context) (token int64, err error)
	unlock(ctx context.Context) error
}

type ours struct {
	t      testing.TB
	client *clientv3.Client
	key    string
	unlk   func(context.Context) error
}

func (o *ours) lock(ctx context.Context) (int64, error) {
	l := newLock(o.t, o.client, o.key, "ours")
	_, err := l.Lock(ctx)
	o.unlk = l.Unlock
	return l.Holding().Token(), err
}
func (o *ours) unlock(ctx context.Context) error { return o.unlk(ctx) }

type mutex struct{ *concurrency.Mutex }

func newMutex(t testing.TB, client *clientv3.Client, key string) mutex {
	s, err := concurrency.NewSession(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return mutex{concurrency.NewMutex(s, key)}
}

func (m mutex) lock(ctx context.Context) (int64, error) {
	err := m.Lock(ctx)
	if err != nil {
		return 0, err
	}
	return m.Header().Revision, nil
}
func (m mutex) unlock(ctx context.Context) error { return m.Unlock(ctx) }

type rpcLock struct {
	client v3lockpb.LockClient
	key    string
	lease  clientv3.LeaseID
	place  []byte
}

func newRPC(t testing.TB, client *clientv3.Client, key string) *rpcLock {
	s, err := concurrency.NewSession(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &rpcLock{client: v3lockpb.NewLockClient(client.ActiveConnection()), key: key, lease: s.Lease()}
}

func (r *rpcLock) lock(ctx context.Context) (int64, error) {
	resp, err := r.client.Lock(ctx, &v3lockpb.LockRequest{Name: []byte(r.key), Lease: int64(r.lease)})
	if err != nil {
		return 0, err
	}
	r.place = resp.Key
	return resp.Header.Revision, nil
}

func (r *rpcLock) unlock(ctx context.Context) error {
	_, err := r.client.Unlock(ctx, &v3lockpb.UnlockRequest{Key: r.place})
	return err
}

// newKind returns the i-th kind of contender.
func newKind(t testing.TB, client *clientv3.Client, key string, i int) contending {
	switch i % 3 {
	case 0:
		return newMutex(t, client, key)
	case 1:
		return newRPC(t, client, key)
	}
	return &ours{t: t, client: client, key: key}
}

// inLine counts the places.
func inLine(t testing.TB, client *clientv3.Client, key string) int64 {
	resp, err := client.Get(etcdtest.Context(t), key+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count
}

// awaitInLine waits until there are so many places.
func awaitInLine(t testing.TB, client *clientv3.Client, key string, n int) {
	t.Helper()
	etcdtest.Await(t, fmt.Sprintf("%d to be in line", n), func(context.Context) error {
		if got := inLine(t, client, key); got != int64(n) {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
}

// TestFirstComeFirstServedAcrossPeers starts contenders of all kinds one after the other and lets
// them go in turn.
func TestFirstComeFirstServedAcrossPeers(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key, n = "/peers", 30
	first := newMutex(t, client, key)
	if _, err := first.lock(ctx); err != nil {
		t.Fatal(err)
	}
	var (
		mu     sync.Mutex
		order  []int
		inside int
		wg     sync.WaitGroup
	)
	for i := range n {
		c := newKind(t, client, key, i)
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
		awaitInLine(t, client, key, i+2)
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
		c := newKind(t, client, key, i)
		if o, ok := c.(*ours); ok {
			c = &reused{ours: o}
		}
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
// Whoever sees only the second one must not take it for the first: each would wait for the other
// for ever.
func TestMutexLocksAgainUnseen(t *testing.T) {
	s := etcdtest.Shared(t)
	gate := etcdtest.NewGate(t, s.Endpoint())
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if w, ok := answer.(*pb.WatchResponse); ok && len(w.Events) > 0 {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	c := s.Config()
	c.Endpoints = []string{gate.Endpoint()}
	ctx := etcdtest.Context(t)
	m := newMutex(t, s.Client(t), "/unseen")
	if _, err := m.lock(ctx); err != nil {
		t.Fatal(err)
	}
	l := newLock(t, etcdtest.Dial(t, c), "/unseen", "ours")
	l.Session().RefreshInterval = 50 * time.Millisecond
	waits, got := make(chan struct{}), make(chan error, 1)
	l.OnWait = func() { close(waits) }
	go func() { _, err := l.Lock(ctx); got <- err }()
	<-waits
	if err := m.unlock(ctx); err != nil {
		t.Fatal(err)
	}
	again := make(chan error, 1)
	go func() { _, err := m.lock(ctx); again <- err }()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, l)
	if err := <-again; err != nil {
		t.Fatal(err)
	}
}

// reused is one Lock that is used again and again.
type reused struct {
	*ours
	once sync.Once
	l    *etcdlock.Lock
}

func (r *reused) lock(ctx context.Context) (int64, error) {
	r.once.Do(func() { r.l = newLock(r.t, r.client, r.key, "ours") })
	held, err := r.l.Lock(ctx)
	return held.Token(), err
}
func (r *reused) unlock(ctx context.Context) error { return r.l.Unlock(ctx) }

func TestAnOldTokenGuardsNothing(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	l := newLock(t, client, "/fence", "me")
	mustLock(t, l)
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
	b := newLock(t, client, "n/2024-10", "b")
	mustLock(t, b)
	a, a2 := newLock(t, client, "n", "a"), newLock(t, client, "n", "a2")
	mustLock(t, a)
	if _, err := a2.TryLock(ctx); err == nil {
		t.Error("two hold n")
	}
	got := make(chan error, 1)
	waits := make(chan struct{})
	a2.OnWait = func() { close(waits) }
	go func() { _, err := a2.Lock(ctx); got <- err }()
	<-waits
	mustUnlock(t, a)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, a2)
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
	first := newLock(t, client, key, "first")
	mustLock(t, first)
	var (
		mu    sync.Mutex
		order []int
		wg    sync.WaitGroup
		gone  []context.CancelFunc
	)
	for i := range n {
		l := newLock(t, client, key, fmt.Sprint(i))
		waiting, cancel := context.WithCancel(ctx)
		defer cancel()
		joined := make(chan struct{})
		l.OnWait = sync.OnceFunc(func() { close(joined) })
		if i%3 == 2 {
			gone = append(gone, cancel)
		}
		wg.Go(func() {
			if _, err := l.Lock(waiting); err != nil {
				if i%3 != 2 {
					t.Errorf("waiter %d: %v", i, err)
				}
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if err := l.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
		<-joined
	}
	for _, cancel := range gone {
		cancel()
	}
	awaitInLine(t, client, key, 1+n-len(gone))
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

// TestForeignKey: a key put by hand keeps our kind out until it is deleted.
func TestForeignKey(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	if _, err := client.Put(ctx, "/foreign", "by hand"); err != nil {
		t.Fatal(err)
	}
	l := newLock(t, client, "/foreign", "me")
	if _, err := l.TryLock(ctx); err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("TryLock: %v", err)
	}
	waits, got := make(chan struct{}), make(chan error, 1)
	l.OnWait = func() { close(waits) }
	go func() { _, err := l.Lock(ctx); got <- err }()
	<-waits
	select {
	case <-got:
		t.Fatal("got a lock that somebody holds by hand")
	// Long enough for a broken one to get it, no harm if not.
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := client.Delete(ctx, "/foreign"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestPlaceDeletedWhileWaiting: whose place is taken away joins again at the end.
func TestPlaceDeletedWhileWaiting(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	a, b := newLock(t, client, "/again", "a"), newLock(t, client, "/again", "b")
	mustLock(t, a)
	waits, got := make(chan struct{}, 8), make(chan error, 1)
	b.OnWait = func() { waits <- struct{}{} }
	go func() { _, err := b.Lock(ctx); got <- err }()
	<-waits
	resp, err := client.Get(ctx, "/again/", clientv3.WithLastCreate()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Delete(ctx, string(resp.Kvs[0].Key)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-waits:
	case err := <-got:
		t.Fatalf("instead of joining again: %v", err)
	}
	mustUnlock(t, a)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}
