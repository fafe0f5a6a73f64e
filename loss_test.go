package etcdlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// causeOf waits until the context ends and returns the loss.
func causeOf(t *testing.T, held context.Context) *etcdlock.LostError {
	t.Helper()
	select {
	case <-held.Done():
	case <-etcdtest.Context(t).Done():
		t.Fatal("the lock was never lost")
	}
	var lost *etcdlock.LostError
	if !errors.As(context.Cause(held), &lost) {
		t.Fatalf("held ended with %v", context.Cause(held))
	}
	return lost
}

func placeOf(t *testing.T, client *clientv3.Client, key string) (string, clientv3.LeaseID) {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), key+"/", clientv3.WithPrefix())
	if err != nil || len(resp.Kvs) == 0 {
		t.Fatalf("no place in line: %v, %v", resp, err)
	}
	return string(resp.Kvs[0].Key), clientv3.LeaseID(resp.Kvs[0].Lease)
}

func TestLossFromOutside(t *testing.T) {
	etcdtest.NoLeaks(t)
	tests := []struct {
		name   string
		do     func(ctx context.Context, c *clientv3.Client, key, place string, lease clientv3.LeaseID) error
		reason etcdlock.Reason
	}{
		{"key deleted", func(ctx context.Context, c *clientv3.Client, key, _ string, _ clientv3.LeaseID) error {
			_, err := c.Delete(ctx, key)
			return err
		}, etcdlock.KeyDeleted},
		{"key overwritten", func(ctx context.Context, c *clientv3.Client, key, _ string, _ clientv3.LeaseID) error {
			_, err := c.Put(ctx, key, "somebody")
			return err
		}, etcdlock.KeyOverwritten},
		{"key overwritten with the same value", func(ctx context.Context, c *clientv3.Client, key, _ string, lease clientv3.LeaseID) error {
			_, err := c.Put(ctx, key, "me", clientv3.WithLease(lease))
			return err
		}, etcdlock.KeyOverwritten},
		{"place deleted", func(ctx context.Context, c *clientv3.Client, _, place string, _ clientv3.LeaseID) error {
			_, err := c.Delete(ctx, place)
			return err
		}, etcdlock.PlaceLost},
		{"place overwritten", func(ctx context.Context, c *clientv3.Client, _, place string, _ clientv3.LeaseID) error {
			_, err := c.Put(ctx, place, "", clientv3.WithIgnoreLease())
			return err
		}, etcdlock.PlaceLost},
		{"lease revoked", func(ctx context.Context, c *clientv3.Client, _, _ string, lease clientv3.LeaseID) error {
			_, err := c.Revoke(ctx, lease)
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
			place, lease := placeOf(t, client, key)
			if err := tt.do(ctx, client, key, place, lease); err != nil {
				t.Fatal(err)
			}
			lost := causeOf(t, held)
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
			if resp, err := client.Get(ctx, key+"/", clientv3.WithPrefix()); err != nil || len(resp.Kvs) > 0 {
				t.Errorf("left in line: %v, %v", resp.Kvs, err)
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
	waits, got := make(chan struct{}), make(chan error, 1)
	b.OnWait = func() { close(waits) }
	go func() { _, err := b.Lock(ctx); got <- err }()
	<-waits
	if _, err := client.Delete(ctx, "/stop"); err != nil {
		t.Fatal(err)
	}
	causeOf(t, held)
	select {
	case err := <-got:
		t.Fatalf("the next one got it before the first had stopped: %v", err)
	// Long enough for a broken one to get it, no harm if not.
	case <-time.After(100 * time.Millisecond):
	}
	a.Unlock(ctx)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestSilenceEndsValidityBeforeTheLease(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Shared(t)
	link := etcdtest.NewLink(t, s.Endpoint())
	c := s.Config()
	c.Endpoints = []string{link.Endpoint()}
	client, direct, ctx := etcdtest.Dial(t, c), s.Client(t), etcdtest.Context(t)
	l, err := etcdlock.New(client, "/silence", "me", 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	held := mustLock(t, l)
	link.Silence()
	if lost := causeOf(t, held); lost.Reason != etcdlock.Unrenewed {
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
	link := etcdtest.NewLink(t, s.Endpoint())
	c := s.Config()
	c.Endpoints = []string{link.Endpoint()}
	client := etcdtest.Dial(t, c)
	l, err := etcdlock.New(client, "/outage", "me", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Session().RefreshInterval, l.Session().Grace = time.Second, time.Second
	held := mustLock(t, l)
	before := l.Holding().Remaining()
	link.Refuse()
	for l.Holding().Remaining() > before-3*time.Second {
		time.Sleep(10 * time.Millisecond) // the outage
	}
	link.Restore()
	etcdtest.Await(t, "a renewal", func(context.Context) error {
		if held.Err() == nil && l.Holding().Remaining() < before-2*time.Second {
			return errors.New("not renewed")
		}
		return nil
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
	before := timed(t, direct, key, "before", time.Minute)
	mustLock(t, before)
	var outage atomic.Bool
	gate := etcdtest.NewGate(t, s.Endpoint())
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if _, renewal := request.(*pb.LeaseKeepAliveRequest); renewal && outage.Load() {
			return etcdtest.Fail
		}
		return etcdtest.Pass
	})
	config := s.Config()
	config.Endpoints = []string{gate.Endpoint()}
	const ttl = 4 * time.Second
	waiter := timed(t, etcdtest.Dial(t, config), key, "waiter", ttl)
	outage.Store(true)
	type result struct {
		held grip
		err  error
	}
	granted := make(chan result, 1)
	go func() {
		held, err := gripOf(waiter.Lock(ctx))
		granted <- result{held, err}
	}()
	awaitKey := func(key string, opts ...clientv3.OpOption) (kv *mvccpb.KeyValue) {
		etcdtest.Await(t, key, func(context.Context) error {
			resp, err := direct.Get(ctx, key, opts...)
			if err == nil && len(resp.Kvs) == 0 {
				err = errors.New("not there")
			}
			if err == nil {
				kv = resp.Kvs[0]
			}
			return err
		})
		return kv
	}
	place := awaitKey(key+"/", append(clientv3.WithLastCreate(), clientv3.WithMinCreateRev(before.Holding().Token()+1))...)
	for began := time.Now(); time.Since(began) < ttl; time.Sleep(ttl / 10) {
		if _, err := direct.KeepAliveOnce(ctx, clientv3.LeaseID(place.Lease)); err != nil {
			t.Fatal(err)
		}
	}
	mustUnlock(t, before)
	awaitKey(key, clientv3.WithMinModRev(place.CreateRevision)) // passed on, or claimed
	outage.Store(false)
	after := <-granted
	if after.err != nil {
		t.Fatal(after.err)
	}
	renewed(t, waiter, after.held, 2)
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
	waits, got := make(chan struct{}), make(chan error, 1)
	b.OnWait = func() { close(waits) }
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _, err := b.Lock(waiting); got <- err }()
	<-waits
	if err := b.Unlock(ctx); err != etcdlock.ErrNotHeld {
		t.Errorf("Unlock while waiting: %v", err)
	}
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("Lock ended with %v", err)
	}
	resp, err := client.Get(ctx, "/cancel/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 1 {
		t.Errorf("%d places in line (%v), want the holder's alone", resp.Count, err)
	}
}
