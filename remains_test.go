package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestOverwrittenWithoutLease: an operator's put takes a place off its lease, so that it does not
// go with that. Whose place it was takes it away, so that nobody waits behind it.
func TestOverwrittenWithoutLease(t *testing.T) {
	s := etcdtest.Start(t)
	for _, whose := range []string{"a holder's", "a waiter's"} {
		t.Run(whose, func(t *testing.T) {
			inBoth(t, s.Client(t), "/off", ttl, func(t *testing.T, l *etcdlock.Lock) {
				client, ctx, key := s.Client(t), etcdtest.Context(t), l.Key()
				holder, other := l, newLock(t, client, key, "other")
				if whose == "a waiter's" {
					holder, other = other, l
				}
				held := mustLock(t, holder)
				second := queue(t, other)
				third := queue(t, newLock(t, s.Client(t), key, "third"))
				if _, err := client.Put(ctx, placeWith(t, client, key+"/", "me"), "by hand"); err != nil {
					t.Fatal(err)
				}
				inTurn := []*waiter{second, third}
				if holder == l {
					causeOf(t, held)
				} else { // whose place is lost goes to the end of the line
					awaitBehind(t, client, key, "third", "me")
					inTurn = []*waiter{third, second}
				}
				if err := holder.Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("Unlock: %v", err)
				}
				for _, w := range inTurn {
					w.mustGet(t)
					mustUnlock(t, w.Lock)
				}
			})
		})
	}
}

// TestOverwrittenInAnOutage: a place that an operator has taken off its lease is taken away when
// etcd answers again, long after Unlock has given up.
func TestOverwrittenInAnOutage(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	link, behind := linked(t, s)
	inBoth(t, behind, "/outage", ttl, func(t *testing.T, l *etcdlock.Lock) {
		held := mustLock(t, l)
		if _, err := client.Put(ctx, placeWith(t, client, l.Key()+"/", "me"), "by hand"); err != nil {
			t.Fatal(err)
		}
		causeOf(t, held)
		link.Silence()
		if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("Unlock: %v", err)
		}
		link.Restore()
		next := newLock(t, client, l.Key(), "next")
		mustLock(t, next)
		mustUnlock(t, next)
		awaitInLine(t, client, l.Key(), 0) // who has a Mutex would wait behind it
	})
}

// TestClosedInAnOutage: Close says that something is left, be it removed in the background or not,
// and it is removed when etcd answers.
func TestClosedInAnOutage(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	link, behind := linked(t, s)
	for name, first := range map[string]func(*etcdlock.Lock) error{
		"after Unlock": func(l *etcdlock.Lock) error { return l.Unlock(ended()) },
		"at once":      func(*etcdlock.Lock) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLock(t, behind, "/closed", "me")
			held := mustLock(t, l)
			if _, err := client.Put(ctx, placeWith(t, client, "/closed/", "me"), "by hand"); err != nil {
				t.Fatal(err)
			}
			causeOf(t, held)
			link.Silence()
			if err := first(l); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
				t.Error(err)
			}
			if err := l.Close(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Errorf("Close: %v", err)
			}
			link.Restore()
			awaitInLine(t, client, "/closed", 0)
		})
	}
}

// TestForcedAfterALoss: a lock that was lost, and is then taken by force, is not renewed any more,
// also if nobody unlocks it.
func TestForcedAfterALoss(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	l := timed(t, s.Client(t), "/forced", "me", 2*time.Second)
	held := mustLock(t, l)
	if _, err := client.Delete(ctx, "/forced"); err != nil {
		t.Fatal(err)
	}
	if lost := causeOf(t, held); lost.Reason != etcdlock.KeyDeleted {
		t.Error(lost)
	}
	lease := l.Holding().Lease()
	if _, err := client.Delete(ctx, placeWith(t, client, "/forced/", "me")); err != nil {
		t.Fatal(err)
	}
	etcdtest.Await(t, "the lease to run out", func(ctx context.Context) error {
		left, err := client.TimeToLive(ctx, lease)
		if err == nil && left.TTL >= 0 {
			err = fmt.Errorf("it lasts for %d s", left.TTL)
		}
		return err
	})
}

// TestOwnKeyByHand: K, written by hand for a session, goes when the session gives the lock back.
func TestOwnKeyByHand(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	_, l := sessionLock(t, s.Client(t), "/by-hand", ttl)
	held := mustLock(t, l)
	if _, err := client.Put(ctx, "/by-hand", "me", clientv3.WithLease(l.Holding().Lease())); err != nil {
		t.Fatal(err)
	}
	causeOf(t, held)
	if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("Unlock: %v", err)
	}
	mustLock(t, newLock(t, client, "/by-hand", "next"))
}

// TestNothingIsWatchedInVain: what waits for a place that may still appear ends with its lease.
func TestNothingIsWatchedInVain(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	session, l := sessionLock(t, behind, "/in-vain", ttl)
	sign, err := session.NewLock("/sign", "me")
	if err != nil {
		t.Fatal(err)
	}
	held := mustLock(t, sign)
	holdJoins(gate, 1000)
	ctx, leave := context.WithCancel(etcdtest.Context(t))
	left := make(chan error, 1)
	go func() { _, err := l.Lock(ctx); left <- err }()
	gate.AwaitHeld(t)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v", err)
	}
	if _, err := s.Client(t).Revoke(etcdtest.Context(t), sign.Holding().Lease()); err != nil {
		t.Fatal(err)
	}
	if err := sign.Holding().Refresh(etcdtest.Context(t)); err == nil { // it tells the session
		t.Error("a lease that is gone was renewed")
	}
	causeOf(t, held)
	sign.Unlock(etcdtest.Context(t))
	awaitNoWatch(t, l)
}

// awaitBehind waits until somebody's place is behind another's.
func awaitBehind(t *testing.T, client *clientv3.Client, key, before, id string) {
	t.Helper()
	first := placeWith(t, client, key+"/", before)
	etcdtest.Await(t, id+" to be behind "+before, func(ctx context.Context) error {
		line, err := client.Get(ctx, key+"/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		if err != nil {
			return err
		}
		n := len(line.Kvs)
		if n < 2 || string(line.Kvs[n-2].Key) != first || !strings.Contains(string(line.Kvs[n-1].Value), `"id":"`+id+`"`) {
			return fmt.Errorf("%v", line.Kvs)
		}
		return nil
	})
}

// TestLostAndForgotten: of locks that were lost, and that nobody unlocks, nothing is left.
func TestLostAndForgotten(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	witness := newLock(t, client, "/witness", "me")
	mustLock(t, witness)
	awaitWatches(t, witness, 3)
	before := runtime.NumGoroutine()
	for range 10 {
		l, err := etcdlock.New(client, "/forgotten", "me", ttl)
		if err != nil {
			t.Fatal(err)
		}
		held := mustLock(t, l)
		awaitWatches(t, l, 6)
		if _, err := client.Revoke(ctx, l.Holding().Lease()); err != nil {
			t.Fatal(err)
		}
		causeOf(t, held)
	}
	etcdtest.Await(t, "all to be forgotten", func(context.Context) error {
		if n, more := witness.Watches(), runtime.NumGoroutine()-before; n > 3 || more > 3 {
			return fmt.Errorf("%d watches, %d goroutines more", n, more)
		}
		return nil
	})
}
