package etcdlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestForced: after these reasons somebody else may already hold the lock, and after those not.
func TestForced(t *testing.T) {
	forced := map[etcdlock.Reason]bool{
		etcdlock.Unrenewed:      false,
		etcdlock.KeyDeleted:     false,
		etcdlock.KeyOverwritten: false,
		etcdlock.PlaceLost:      true,
		etcdlock.LeaseLost:      true,
		etcdlock.HistoryLost:    true,
		etcdlock.SlotLost:       true,
	}
	for reason, want := range forced {
		if reason.Forced() != want {
			t.Errorf("%q: forced %v", reason, !want)
		}
	}
	unknown := etcdlock.Reason(len(forced) + 1)
	if got := unknown.String(); got != "reason 8" {
		t.Errorf("%q is missing above", got)
	}
	if !unknown.Forced() {
		t.Error("nobody else can hold the lock, for a reason that is not known")
	}
}

func TestLossFromOutside(t *testing.T) {
	etcdtest.NoLeaks(t)
	tests := []struct {
		name   string
		do     func(ctx context.Context, c *clientv3.Client, key string, p place) error
		reason etcdlock.Reason
	}{
		{"key deleted", func(ctx context.Context, c *clientv3.Client, key string, _ place) error {
			_, err := c.Delete(ctx, key)
			return err
		}, etcdlock.KeyDeleted},
		{"key overwritten", func(ctx context.Context, c *clientv3.Client, key string, _ place) error {
			_, err := c.Put(ctx, key, "somebody")
			return err
		}, etcdlock.KeyOverwritten},
		{"key overwritten with the same value", func(ctx context.Context, c *clientv3.Client, key string, p place) error {
			_, err := c.Put(ctx, key, "me", clientv3.WithLease(p.lease))
			return err
		}, etcdlock.KeyOverwritten},
		{"place deleted", func(ctx context.Context, c *clientv3.Client, _ string, p place) error {
			_, err := c.Delete(ctx, p.key)
			return err
		}, etcdlock.PlaceLost},
		{"place overwritten", func(ctx context.Context, c *clientv3.Client, _ string, p place) error {
			_, err := c.Put(ctx, p.key, "", clientv3.WithIgnoreLease())
			return err
		}, etcdlock.PlaceLost},
		{"lease revoked", func(ctx context.Context, c *clientv3.Client, _ string, p place) error {
			_, err := c.Revoke(ctx, p.lease)
			return err
		}, etcdlock.LeaseLost},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, ctx := s.Client(t), etcdtest.Context(t)
			key := "/loss/" + tt.name
			l := newLock(t, client, key, "me")
			held := mustLock(t, l)
			token := l.Holding().Token()
			place := placeOf(t, client, key, "me")
			if err := tt.do(ctx, client, key, place); err != nil {
				t.Fatal(err)
			}
			lost := awaitLoss(t, held)
			if lost.Reason != tt.reason {
				t.Errorf("the reason is %q, want %q", lost.Reason, tt.reason)
			}
			if lost.Token != token || lost.Key != key || lost.ID != "me" {
				t.Errorf("the loss is of %+v", lost)
			}
			if tt.reason.Forced() {
				<-l.Holding().Expired()
			} else if l.Holding().Remaining() <= 0 {
				t.Error("a request to stop took the validity away")
			}
			if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
				t.Errorf("Unlock after the loss: %v", err)
			}
			if left := etcdtest.Keys(t, client, key+"/"); len(left) > 0 {
				t.Errorf("left in line: %v", left)
			}
			if _, err := client.Delete(ctx, key); err != nil { // what was put there by hand
				t.Error(err)
			}
		})
	}
}

// TestNoOverlapAfterTheKeyWasDeleted: a request to stop must not let the next one start before this
// one has stopped.
func TestNoOverlapAfterTheKeyWasDeleted(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	a, b := newLock(t, client, "/stop", "a"), newLock(t, client, "/stop", "b")
	held := mustLock(t, a)
	w := queue(t, b)
	must(t)(client.Delete(ctx, "/stop"))
	awaitLoss(t, held)
	w.mustNotGet(t, 100*time.Millisecond) // before the first has stopped
	a.Unlock(ctx)
	w.mustGet(t)
}

func TestSilenceEndsValidityBeforeTheLease(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	link, client := s.Linked(t)
	direct, ctx := s.Client(t), etcdtest.Context(t)
	l := newLock(t, client, "/silence", "me")
	l.Session().TTL = 3 * time.Second
	held := mustLock(t, l)
	link.Silence()
	if lost := awaitLoss(t, held); lost.Reason != etcdlock.Unrenewed {
		t.Errorf("the reason is %v", lost.Reason)
	}
	if l.Holding().Remaining() <= 0 {
		t.Error("the grace was over before it began")
	}
	<-l.Holding().Expired()
	resp, err := direct.Get(ctx, "/silence")
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Error("etcd had freed the lock before its holder gave it up")
	}
	link.Restore()
	if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("Unlock: %v", err)
	}
}

// TestHeldThroughAnOutage: one renewal in time is enough.
func TestHeldThroughAnOutage(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	link, client := s.Linked(t)
	l := newLock(t, client, "/outage", "me")
	l.Session().TTL, l.Session().RefreshInterval, l.Session().Grace = 10*time.Second, time.Second, time.Second
	held := mustLock(t, l)
	before := l.Holding().Remaining()
	link.Refuse()
	for l.Holding().Remaining() > before-3*time.Second {
		time.Sleep(10 * time.Millisecond) // the outage
	}
	link.Restore()
	await(t, "a renewal", func() (bool, any) {
		left := l.Holding().Remaining()
		return held.Err() != nil || left >= before-2*time.Second, left
	})
	if held.Err() != nil {
		t.Fatalf("lost: %v", context.Cause(held))
	}
	mustUnlock(t, l)
	l.Close(etcdtest.Context(t))
}

// TestGrantedAfterAnOutage: a waiter that could not renew for longer than its TTL, and whose lease
// etcd has kept all the same (as a new leader does), gets the lock and keeps it.
func TestGrantedAfterAnOutage(t *testing.T) {
	etcdtest.NoLeaks(t)
	s, ctx, key := etcdtest.Shared(t), etcdtest.Context(t), "/after-an-outage"
	direct := s.Client(t)
	before := newHolder(t, direct, key, "before")
	gate, behind := s.Gated(t)
	const ttl = 10 * time.Second
	waiter := newLock(t, behind, key, "waiter")
	waiter.Session().TTL = ttl
	intercept(gate, every, etcdtest.Fail, "renew") // the outage
	w := startLock(t, waiter)
	awaitKeys(t, direct, key+"/", 2)
	lease := placeOf(t, direct, key, "waiter").lease
	for began := time.Now(); time.Since(began) < ttl; time.Sleep(ttl / 10) {
		must(t)(direct.KeepAliveOnce(ctx, lease))
	}
	token := before.Holding().Token()
	mustUnlock(t, before)
	await(t, "the lock to be passed on, or claimed", func() (bool, any) {
		later, err := direct.Get(ctx, key, clientv3.WithMinModRev(token+1))
		return err == nil && len(later.Kvs) > 0, err
	})
	gate.Intercept(nil)
	w.mustGet(t)
	awaitRenewals(t, waiter, w.held, 2)
	if err := waiter.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestUnlockWhileWaitingAndCancel(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	a, b := newLock(t, client, "/cancel", "a"), newLock(t, client, "/cancel", "b")
	mustLock(t, a)
	w := queue(t, b)
	if err := b.Unlock(ctx); err != etcdlock.ErrNotHeld {
		t.Errorf("Unlock while waiting: %v", err)
	}
	w.mustLeave(t)
	if line := etcdtest.Keys(t, client, "/cancel/"); len(line) != 1 {
		t.Errorf("%d places in line, want the holder's alone", len(line))
	}
}
