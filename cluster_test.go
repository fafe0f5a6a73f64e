package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// renewed waits until a lock has been renewed n times more, and fails if it is lost.
func renewed(t *testing.T, l *etcdlock.Lock, held context.Context, n int) {
	t.Helper()
	for range n {
		low := l.Holding().Remaining()
		etcdtest.Await(t, "a renewal", func(context.Context) error {
			if held.Err() != nil {
				t.Fatalf("lost: %v", context.Cause(held))
			}
			now := l.Holding().Remaining()
			if now > low {
				return nil
			}
			low = now
			return errors.New("not renewed")
		})
	}
}

// TestOneSilentMember: of three members one falls silent, connections and all. A holder whose
// client knows all three keeps its lock, and a waiter gets its turn.
func TestOneSilentMember(t *testing.T) {
	t.Parallel()
	c := etcdtest.StartCluster(t, 3)
	for silent, member := range c.Endpoints() {
		t.Run(fmt.Sprint("member ", silent), func(t *testing.T) {
			t.Parallel()
			link := etcdtest.NewLink(t, member)
			config := c.Config()
			config.Endpoints[silent] = link.Endpoint()
			key, ctx := fmt.Sprint("/silent/", silent), etcdtest.Context(t)
			holder := timed(t, etcdtest.Dial(t, config), key, "holder", 15*time.Second)
			holder.Session().RefreshInterval = time.Second
			held := mustLock(t, holder)
			waiter := timed(t, etcdtest.Dial(t, config), key, "waiter", 15*time.Second)
			waiter.Session().RefreshInterval = time.Second
			waits, got := make(chan struct{}, 8), make(chan error, 1)
			waiter.OnWait = func() { waits <- struct{}{} }
			go func() { _, err := waiter.Lock(ctx); got <- err }()
			<-waits

			link.Silence()
			renewed(t, holder, held, 3)
			mustUnlock(t, holder)
			if err := <-got; err != nil {
				t.Fatalf("the waiter: %v", err)
			}
			mustUnlock(t, waiter)
		})
	}
}

// TestLeaderStopped: renewals that a stopped leader acknowledges do not count, those of its
// successor do.
func TestLeaderStopped(t *testing.T) {
	t.Parallel()
	c := etcdtest.StartCluster(t, 3)
	l := timed(t, c.Client(t), "/leader", "me", 20*time.Second)
	l.Session().RefreshInterval = time.Second
	held := mustLock(t, l)
	leader := c.Leader()
	leader.Stop()
	renewed(t, l, held, 3)
	leader.Cont()
	renewed(t, l, held, 3)
	mustUnlock(t, l)
}

// TestRestart: a server that is killed and comes back in time costs nothing, for a holder or a
// waiter.
func TestRestart(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t)
	ctx := etcdtest.Context(t)
	l, w := timed(t, p.Client(t), "/restart", "me", 30*time.Second), timed(t, p.Client(t), "/restart", "next", 30*time.Second)
	l.Session().RefreshInterval, w.Session().RefreshInterval = time.Second, time.Second
	held := mustLock(t, l)
	waits, got := make(chan struct{}, 8), make(chan error, 1)
	w.OnWait = func() { waits <- struct{}{} }
	go func() { _, err := w.Lock(ctx); got <- err }()
	<-waits
	p.Kill()
	p.Restart()
	renewed(t, l, held, 2)
	mustUnlock(t, l)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestWiped: a server that comes back empty has forgotten the lock: a holder loses it, a waiter
// joins again.
func TestWiped(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t)
	ctx := etcdtest.Context(t)
	l, w := timed(t, p.Client(t), "/wiped", "me", 60*time.Second), timed(t, p.Client(t), "/wiped", "next", 60*time.Second)
	l.Session().RefreshInterval, w.Session().RefreshInterval = time.Second, time.Second
	held := mustLock(t, l)
	waits, got := make(chan struct{}, 8), make(chan error, 1)
	w.OnWait = func() { waits <- struct{}{} }
	go func() { _, err := w.Lock(ctx); got <- err }()
	<-waits
	p.Wipe()
	if lost := causeOf(t, held); !lost.Reason.Forced() {
		t.Errorf("the reason is %v", lost.Reason)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// TestReleaseAfterAWipe: a holder that could not notice that etcd has lost its data learns it when
// it gives the lock back.
func TestReleaseAfterAWipe(t *testing.T) {
	for name, release := range map[string]func(*etcdlock.Lock, context.Context) error{"Unlock": (*etcdlock.Lock).Unlock, "Close": (*etcdlock.Lock).Close} {
		t.Run(name, func(t *testing.T) {
			p := etcdtest.StartProcess(t)
			link := etcdtest.NewLink(t, p.Endpoint())
			config := p.Config()
			config.Endpoints = []string{link.Endpoint()}
			l := timed(t, etcdtest.Dial(t, config), "/wiped", "me", 60*time.Second)
			held := mustLock(t, l)
			link.Silence()
			p.Wipe()
			released := make(chan error, 1)
			go func() { released <- release(l, etcdtest.Context(t)) }()
			<-held.Done() // the release has begun
			link.Restore()
			var lost *etcdlock.LostError
			if err := <-released; !errors.As(err, &lost) || !lost.Reason.Forced() {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// TestCompacted: compaction disturbs neither a holder nor a waiter.
func TestCompacted(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	a, b := newLock(t, client, "/compacted", "a"), newLock(t, client, "/compacted", "b")
	held := mustLock(t, a)
	waits, got := make(chan struct{}), make(chan error, 1)
	b.OnWait = func() { close(waits) }
	go func() { _, err := b.Lock(ctx); got <- err }()
	<-waits
	for range 3 {
		resp, err := client.Put(ctx, "/else", "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
	}
	if held.Err() != nil {
		t.Fatal(context.Cause(held))
	}
	mustUnlock(t, a)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}
