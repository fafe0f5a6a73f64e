package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/wire"
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
				must(t)(client.Put(ctx, placeOf(t, client, key, "me").key, "by hand"))
				inTurn := []*waiter{second, third}
				if holder == l {
					awaitLoss(t, held)
				} else { // whose place is lost goes to the end of the line
					await(t, "it to be behind the third", func() (bool, any) {
						line := etcdtest.Keys(t, client, key+"/")
						last := strings.Contains(string(line[len(line)-1].Value), `"id":"me"`)
						return last && string(line[len(line)-2].Key) == placeOf(t, client, key, "third").key, line
					})
					inTurn = []*waiter{third, second}
				}
				if err := holder.Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("Unlock: %v", err)
				}
				takeTurns(t, inTurn...)
			})
		})
	}
}

// TestOverwrittenInAnOutage: a place that an operator has taken off its lease is taken away when
// etcd answers again, long after Unlock has given up.
func TestOverwrittenInAnOutage(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	link, behind := s.Linked(t)
	inBoth(t, behind, "/outage", ttl, func(t *testing.T, l *etcdlock.Lock) {
		held := mustLock(t, l)
		must(t)(client.Put(ctx, placeOf(t, client, l.Key(), "me").key, "by hand"))
		awaitLoss(t, held)
		link.Silence()
		if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("Unlock: %v", err)
		}
		link.Restore()
		mustUnlock(t, newHolder(t, client, l.Key(), "next"))
		awaitKeys(t, client, l.Key()+"/", 0) // who has a Mutex would wait behind it
	})
}

// TestClosedInAnOutage: Close says that something is left, be it removed in the background or not,
// and it is removed when etcd answers.
func TestClosedInAnOutage(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	link, behind := s.Linked(t)
	for name, first := range map[string]func(*etcdlock.Lock) error{
		"after Unlock": func(l *etcdlock.Lock) error { return l.Unlock(ended()) },
		"at once":      func(*etcdlock.Lock) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLock(t, behind, "/closed", "me")
			held := mustLock(t, l)
			must(t)(client.Put(ctx, placeOf(t, client, "/closed", "me").key, "by hand"))
			awaitLoss(t, held)
			link.Silence()
			if err := first(l); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
				t.Error(err)
			}
			if err := l.Close(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Errorf("Close: %v", err)
			}
			link.Restore()
			awaitKeys(t, client, "/closed/", 0)
		})
	}
}

// TestForcedAfterALoss: a lock that was lost, and is then taken by force, is not renewed any more,
// also if nobody unlocks it.
func TestForcedAfterALoss(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	l := newLock(t, s.Client(t), "/forced", "me")
	l.Session().TTL = 2 * time.Second
	held := mustLock(t, l)
	must(t)(client.Delete(ctx, "/forced"))
	if lost := awaitLoss(t, held); lost.Reason != etcdlock.KeyDeleted {
		t.Error(lost)
	}
	lease := l.Holding().Lease()
	must(t)(client.Delete(ctx, placeOf(t, client, "/forced", "me").key))
	etcdtest.Await(t, "the lease to run out", func(ctx context.Context) error {
		left, err := client.TimeToLive(ctx, lease)
		if err == nil && left.TTL >= 0 {
			err = fmt.Errorf("it lasts for %d s", left.TTL)
		}
		return err
	})
}

// TestOwnKeyByHand: K, written by hand under the lease of whoever holds it, goes when the lock is
// given back, whatever is in it and whether the loss was noticed: the next one gets the lock, and
// whoever had it gets it again.
func TestOwnKeyByHand(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for name, value := range map[string]string{"touched": "me", "overwritten": "by hand"} {
		for _, shared := range []bool{false, true} {
			for _, noticed := range []bool{false, true} {
				key := fmt.Sprintf("/by-hand/%s/%v/%v", name, shared, noticed)
				l := newLock(t, s.Client(t), key, "me")
				if shared {
					_, l = sessionLock(t, s.Client(t), key, time.Minute)
				}
				l.Session().TTL = time.Minute
				held := mustLock(t, l)
				must(t)(client.Put(ctx, key, value, clientv3.WithIgnoreLease()))
				if noticed {
					awaitLoss(t, held)
				}
				if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("%s: Unlock: %v", key, err)
				}
				mustLock(t, l)
				mustUnlock(t, l)
				next := newLock(t, client, key, "next")
				mustLock(t, next)
				mustUnlock(t, next)
			}
		}
	}
}

// TestNothingIsWatchedInVain: what waits for a place that may still appear ends with its lease.
func TestNothingIsWatchedInVain(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session, l := sessionLock(t, behind, "/in-vain", ttl)
	sign := lockIn(t, session, "/sign", "me")
	held := mustLock(t, sign)
	intercept(gate, every, etcdtest.HoldRequest, joins...)
	w := startLock(t, l)
	gate.AwaitHeld(t)
	w.mustLeave(t)
	must(t)(s.Client(t).Revoke(etcdtest.Context(t), sign.Holding().Lease()))
	if err := sign.Holding().Refresh(etcdtest.Context(t)); err == nil { // it tells the session
		t.Error("a lease that is gone was renewed")
	}
	awaitLoss(t, held)
	sign.Unlock(etcdtest.Context(t))
	awaitNoWatch(t, l)
}

// TestLostAndForgotten: of locks that were lost, and that nobody unlocks, nothing is left.
func TestLostAndForgotten(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	witness := newHolder(t, client, "/witness", "me")
	awaitWatches(t, witness, 3)
	before := runtime.NumGoroutine()
	for range 10 {
		l, err := etcdlock.New(client, "/forgotten", "me", ttl)
		if err != nil {
			t.Fatal(err)
		}
		held := mustLock(t, l)
		awaitWatches(t, l, 6)
		must(t)(client.Revoke(ctx, l.Holding().Lease()))
		awaitLoss(t, held)
	}
	await(t, "all to be forgotten", func() (bool, any) {
		watches, more := witness.Watches(), runtime.NumGoroutine()-before
		return watches <= 3 && more <= 3, fmt.Sprintf("%d watches, %d goroutines more", watches, more)
	})
}

// TestPlacePutAgain: a waiter does not wait behind a place of its own that an operator has deleted
// and put again.
func TestPlacePutAgain(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/put-again", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newHolder(t, client, "/put-again", "holder")
		w := queue(t, l)
		old := placeOf(t, client, "/put-again", "me")
		before, err := client.Get(ctx, old.key)
		if err != nil {
			t.Fatal(err)
		}
		put := make(chan struct{}) // the waiter looks for what is left of its place after that
		gate.Intercept(func(string, proto.Message) etcdtest.Verdict {
			<-put
			return etcdtest.Pass
		})
		must(t)(client.Delete(ctx, old.key))
		_, err = client.Put(ctx, old.key, string(before.Kvs[0].Value), clientv3.WithLease(old.lease))
		close(put)
		gate.Intercept(nil)
		// A lease of its own goes at once.
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			t.Fatal(err)
		}
		w.mustWait(t)
		mustUnlock(t, holder)
		takeTurns(t, w)
	})
}

// TestTwoCloses: of several calls of Close none says that all is given back before it is.
func TestTwoCloses(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, s.Client(t))
	lockMany(t, session, 500)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			if err := session.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
			if keys := etcdtest.Keys(t, client, "/many/"); len(keys) > 0 {
				t.Errorf("Close has returned, and there are %d keys", len(keys))
			}
		})
	}
	calls.Wait()
}

// TestManyDebts: a lease with keys is owed although many grants had no answer since.
func TestManyDebts(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	l := newHolder(t, behind, "/debts", "me")
	link.Refuse()
	if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Fatalf("Unlock: %v", err)
	}
	l.Session().ConnectTimeout = 50 * time.Millisecond
	for range 17 {
		if _, err := l.Lock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Fatalf("Lock: %v", err)
		}
	}
	link.Restore()
	l.Close(etcdtest.Context(t)) // what it forgot makes it say that something may be left
	if keys := etcdtest.Keys(t, s.Client(t), "/debts"); len(keys) > 0 {
		t.Errorf("left: %v", keys)
	}
}

// lockBehind acquires a lock behind its holder, so that there is a tail.
func lockBehind(t *testing.T, holder, l *etcdlock.Lock) {
	t.Helper()
	w := queue(t, l)
	awaitNextKnown(t, holder)
	mustUnlock(t, holder)
	w.mustGet(t)
}

// TestTailDeniedForAWhile: the tail of a place that was given back while nothing was allowed goes
// with the rest when that is allowed again, at once or later.
func TestTailDeniedForAWhile(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]bool{"at once": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			s := etcdtest.Start(t)
			worker, root, ctx := newWorker(t, s, "/comes"), s.Client(t), etcdtest.Context(t)
			tail, below := wire.Tail("/comes"), wire.Prefix("/comes")
			revoke := func(key, end string) { must(t)(root.RoleRevokePermission(ctx, "worker", key, end)) }
			grant := func(key, end string) {
				must(t)(root.RoleGrantPermission(ctx, "worker", key, end, clientv3.PermissionType(clientv3.PermReadWrite)))
			}
			grant(tail, "")
			_, l := sessionLock(t, etcdtest.Dial(t, worker), "/comes", ttl)
			lockBehind(t, newHolder(t, root, "/comes", "holder"), l)
			revoke(tail, "")
			revoke("/comes", "")
			revoke(below, clientv3.GetPrefixRangeEnd(below))
			if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Errorf("Unlock: %v", err)
			}
			grant("/comes", "")
			grant(below, clientv3.GetPrefixRangeEnd(below))
			if later {
				awaitKeys(t, root, "/comes", 1) // the tail, which was looked for right after that
			}
			grant(tail, "")
			awaitKeys(t, root, "/comes", 0)
		})
	}
}

// TestClosedByWhoMayNotWriteTheTail: etcd refuses to revoke a lease if one of its keys may not be
// written. The lock does not wait for the lease to run out.
func TestClosedByWhoMayNotWriteTheTail(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, root, ctx := newWorker(t, s, "/tailed"), s.Client(t), etcdtest.Context(t)
	tail := wire.Tail("/tailed")
	must(t)(root.RoleGrantPermission(ctx, "worker", tail, "", clientv3.PermissionType(clientv3.PermReadWrite)))
	inBoth(t, etcdtest.Dial(t, worker), "/tailed", time.Minute, func(t *testing.T, l *etcdlock.Lock) {
		lockBehind(t, newHolder(t, root, "/tailed", "holder"), l)
		must(t)(root.RoleRevokePermission(ctx, "worker", tail, ""))
		if err := l.Session().Close(ctx); !errors.Is(err, etcdlock.ErrUnconfirmed) {
			t.Errorf("Close: %v", err)
		}
		if keys := etcdtest.Keys(t, root, "/tailed"); len(keys) > 1 {
			t.Errorf("left: %v", keys)
		}
		must(t)(root.RoleGrantPermission(ctx, "worker", tail, "", clientv3.PermissionType(clientv3.PermReadWrite)))
		must(t)(root.Delete(ctx, tail))
	})
}

// TestEndsWithTheLease: what may not be removed is asked for until its lease has gone, and no more.
func TestEndsWithTheLease(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, root, ctx := newWorker(t, s, "/quiet"), s.Client(t), etcdtest.Context(t)
	tail := wire.Tail("/quiet")
	must(t)(root.RoleGrantPermission(ctx, "worker", tail, "", clientv3.PermissionType(clientv3.PermReadWrite)))
	gate := etcdtest.NewGate(t, s.Endpoint())
	_, l := sessionLock(t, gate.Dial(t, worker), "/quiet", 10*time.Second)
	lockBehind(t, newHolder(t, root, "/quiet", "holder"), l)
	must(t)(root.RoleRevokePermission(ctx, "worker", tail, ""))
	hook, asked := etcdtest.Counting("Txn")
	gate.Intercept(hook)
	if err := l.Unlock(ctx); err != nil {
		t.Errorf("Unlock: %v", err)
	}
	awaitKeys(t, root, "/quiet", 0)
	last, since := asked.Load(), time.Now()
	await(t, "nothing to be asked for", func() (bool, any) {
		if n := asked.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 3*time.Second, last
	})
}

// TestClosedByWhoMayNotRead: whoever may not read whether the lock was still its own revokes the
// lease all the same, and at once.
func TestClosedByWhoMayNotRead(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, root, ctx := newWorker(t, s, "/blind"), s.Client(t), etcdtest.Context(t)
	l := newHolder(t, etcdtest.Dial(t, worker), "/blind", "me")
	for _, key := range [][2]string{{"/blind", ""}, {"/blind/", clientv3.GetPrefixRangeEnd("/blind/")}} {
		must(t)(root.RoleGrantPermission(ctx, "worker", key[0], key[1], clientv3.PermissionType(clientv3.PermWrite)))
	}
	if err := l.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	if keys := etcdtest.Keys(t, root, "/blind"); len(keys) > 0 {
		t.Errorf("left: %v", keys)
	}
}

// TestDebtsEnd: what may not be taken back is not asked for without end: it goes with its lease.
func TestDebtsEnd(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, root, ctx := newWorker(t, s, "/ends"), s.Client(t), etcdtest.Context(t)
	l := newLock(t, etcdtest.Dial(t, worker), "/ends", "me")
	l.Session().TTL = 2 * time.Second
	mustLock(t, l)
	for _, key := range [][2]string{{"/ends", ""}, {"/ends/", clientv3.GetPrefixRangeEnd("/ends/")}} {
		must(t)(root.RoleRevokePermission(ctx, "worker", key[0], key[1]))
	}
	if err := l.Close(ctx); err == nil { // unconfirmed, or on a slow machine lost before
		t.Error("Close says that it has given back what it may not")
	}
	await(t, "nothing to be owed", func() (bool, any) { err := l.Close(ctx); return err == nil, err })
}

// TestDetachedInAnOutage: a place that was taken off its lease while nobody could see that is
// removed, whatever ended the lock.
func TestDetachedInAnOutage(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	link, behind := s.Linked(t)
	inBoth(t, behind, "/detached", 2*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		held := mustLock(t, l)
		place := placeOf(t, client, "/detached", "me").key
		link.Silence()
		defer link.Restore()
		must(t)(client.Put(ctx, place, "by hand"))
		<-held.Expired()
		link.Restore()
		var lost *etcdlock.LostError
		if err := l.Unlock(ctx); !errors.As(err, &lost) {
			t.Errorf("Unlock: %v", err)
		}
		awaitKeys(t, client, "/detached", 0) // who has a Mutex would wait behind it
	})
}

// TestNoLeaseIsLeft: Close leaves no lease, not that either with which a later Lock has done
// nothing, because it wanted a longer one.
func TestNoLeaseIsLeft(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	l := newHolder(t, client, "/leases", "me")
	mustUnlock(t, l)
	l.Session().TTL = 2 * ttl
	mustLock(t, l)
	if err := l.Close(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	if left, err := client.Leases(etcdtest.Context(t)); err != nil || len(left.Leases) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
