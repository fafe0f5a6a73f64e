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
			key := fmt.Sprint("/silent/", silent)
			holder := newLock(t, etcdtest.Dial(t, config), key, "holder")
			waiter := newLock(t, etcdtest.Dial(t, config), key, "waiter")
			for _, l := range []*etcdlock.Lock{holder, waiter} {
				l.Session().TTL, l.Session().RefreshInterval = 15*time.Second, time.Second
			}
			held := mustLock(t, holder)
			w := queue(t, waiter)

			link.Silence()
			awaitRenewals(t, holder, held, 3)
			mustUnlock(t, holder)
			takeTurns(t, w)
		})
	}
}

// TestLeaderStopped: renewals that a stopped leader acknowledges do not count, those of its
// successor do.
func TestLeaderStopped(t *testing.T) {
	t.Parallel()
	c := etcdtest.StartCluster(t, 3)
	l := newLock(t, c.Client(t), "/leader", "me")
	l.Session().TTL, l.Session().RefreshInterval = 20*time.Second, time.Second
	held := mustLock(t, l)
	leader := c.Leader()
	leader.Stop()
	awaitRenewals(t, l, held, 3)
	leader.Cont()
	awaitRenewals(t, l, held, 3)
	mustUnlock(t, l)
}

// TestRestart: a server that is killed and comes back in time costs nothing, for a holder or a
// waiter.
func TestRestart(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t)
	l, next := newLock(t, p.Client(t), "/restart", "me"), newLock(t, p.Client(t), "/restart", "next")
	for _, l := range []*etcdlock.Lock{l, next} {
		l.Session().TTL, l.Session().RefreshInterval = 30*time.Second, time.Second
	}
	held := mustLock(t, l)
	w := queue(t, next)
	p.Kill()
	p.Restart()
	awaitRenewals(t, l, held, 2)
	mustUnlock(t, l)
	w.mustGet(t)
}

// TestWiped: a server that comes back empty has forgotten the lock: a holder loses it, a waiter
// joins again.
func TestWiped(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t)
	l, next := newLock(t, p.Client(t), "/wiped", "me"), newLock(t, p.Client(t), "/wiped", "next")
	l.Session().RefreshInterval, next.Session().RefreshInterval = time.Second, time.Second
	held := mustLock(t, l)
	w := queue(t, next)
	p.Wipe()
	if lost := awaitLoss(t, held); !lost.Reason.Forced() {
		t.Errorf("the reason is %v", lost.Reason)
	}
	w.mustGet(t)
}

// TestReleaseAfterAWipe: a holder that could not notice that etcd has lost its data learns it when
// it gives the lock back.
func TestReleaseAfterAWipe(t *testing.T) {
	for name, release := range map[string]func(*etcdlock.Lock, context.Context) error{"Unlock": (*etcdlock.Lock).Unlock, "Close": (*etcdlock.Lock).Close} {
		t.Run(name, func(t *testing.T) {
			p := etcdtest.StartProcess(t)
			link, behind := p.Linked(t)
			l := newLock(t, behind, "/wiped", "me")
			held := mustLock(t, l)
			link.Silence()
			p.Wipe()
			ctx := etcdtest.Context(t)
			released := inBackground(func() error { return release(l, ctx) })
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
	w := queue(t, b)
	for range 3 {
		resp, err := client.Put(ctx, "/else", "x")
		if err != nil {
			t.Fatal(err)
		}
		must(t)(client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()))
	}
	if held.Err() != nil {
		t.Fatal(context.Cause(held))
	}
	mustUnlock(t, a)
	w.mustGet(t)
}
