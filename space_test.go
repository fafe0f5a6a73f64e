package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// TestUnlockWithoutSpace: while etcd takes nothing but deletions, a lock is given back, and who is
// next gets it as soon as there is space.
func TestUnlockWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	inBoth(t, client, "/full", ttl, func(t *testing.T, l *etcdlock.Lock) {
		mustLock(t, l)
		next := queue(t, newLock(t, client, "/full", "next"))
		awaitNextKnown(t, l)
		s.Alarm(t, true)
		mustUnlock(t, l)
		if n := len(etcdtest.Keys(t, client, "/full/")); n != 1 {
			t.Errorf("%d places in line", n)
		}
		s.Alarm(t, false)
		takeTurns(t, next)
	})
}

// TestGiveUpWithoutSpace: who gives up while etcd takes nothing but deletions leaves nothing that
// others would wait for.
func TestGiveUpWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	inBoth(t, client, "/leave", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newHolder(t, client, "/leave", "holder")
		first := queue(t, newLock(t, client, "/leave", "first"))
		leaver := queue(t, l)
		last := queue(t, newLock(t, client, "/leave", "last"))
		s.Alarm(t, true)
		leaver.mustLeave(t)
		s.Alarm(t, false)
		mustUnlock(t, holder)
		takeTurns(t, first, last)
	})
}

// TestNoSpaceAtFirst: who has no place in line yet is told that there is no space, and leaves
// nothing, be the request carried out or not.
func TestNoSpaceAtFirst(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/first", ttl, func(t *testing.T, l *etcdlock.Lock) {
		if err := l.Prepare(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		for _, applied := range []bool{false, true} {
			noSpace(t, s, gate, applied, func() error {
				_, err := l.Lock(etcdtest.Context(t))
				return err
			})
			awaitKeys(t, s.Client(t), "", 0)
			mustLock(t, l)
			mustUnlock(t, l)
		}
		if err := errors.Join(l.Close(etcdtest.Context(t)), l.Session().Close(etcdtest.Context(t))); err != nil {
			t.Error(err)
		}
		s.Empty(t)
	})
}

// TestNoSpaceForALease is the same for the lease.
func TestNoSpaceForALease(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	for _, applied := range []bool{false, true} {
		session := newSession(t, behind)
		noSpace(t, s, gate, applied, func() error { return session.Prepare(etcdtest.Context(t)) })
		s.Empty(t)
	}
}

// noSpace checks that a call says that there is no space, where etcd refuses what it is asked for,
// or carries it out.
func noSpace(t *testing.T, s *etcdtest.Server, gate *etcdtest.Gate, applied bool, call func() error) {
	t.Helper()
	if applied {
		intercept(gate, every, etcdtest.NoSpaceApplied, append(joins, "grant")...)
		defer gate.Intercept(nil)
	} else {
		s.Alarm(t, true)
		defer s.Alarm(t, false)
	}
	if err := call(); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Errorf("applied %v: %v", applied, err)
	}
}

// TestNoSpaceInLine: who stands in line, and is to take another place, waits until there is space.
func TestNoSpaceInLine(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	inBoth(t, client, "/in-line", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newHolder(t, client, "/in-line", "holder")
		w := queue(t, l)
		s.Alarm(t, true)
		must(t)(client.Delete(etcdtest.Context(t), placeOf(t, client, "/in-line", l.ID()).key))
		mustUnlock(t, holder)
		w.mustNotGet(t, time.Second) // it has tried a few times
		s.Alarm(t, false)
		w.mustGet(t)
		mustUnlock(t, l)
	})
}

// TestOneLeaseOfSeveralTries: a grant whose answer is lost is not made twice.
func TestOneLeaseOfSeveralTries(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	l := newLock(t, behind, "/one-lease", "me")
	l.Session().RefreshInterval = 100 * time.Millisecond
	var grants atomic.Int64
	gate.Intercept(func(method string, _ proto.Message) etcdtest.Verdict {
		if strings.HasSuffix(method, "LeaseGrant") && grants.Add(1) <= 2 {
			return etcdtest.FailApplied
		}
		return etcdtest.Pass
	})
	held := mustLock(t, l)
	if grants.Load() < 3 {
		t.Errorf("asked %d times", grants.Load())
	}
	leases, err := s.Client(t).Leases(etcdtest.Context(t))
	if err != nil || len(leases.Leases) != 1 || leases.Leases[0].ID != held.Lease() {
		t.Errorf("there are %v, %v, and the lock's is %x", leases, err, int64(held.Lease()))
	}
	if left := held.Remaining(); left <= 0 || left > ttl {
		t.Errorf("valid for %v", left)
	}
	awaitRenewals(t, l, held, 1)
}

// TestFewOperations: etcd may be set up to take few operations in a transaction.
func TestFewOperations(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(8))
	var sessions []*etcdlock.Session
	for range 2 {
		session := newSession(t, s.Client(t))
		session.RefreshInterval = 100 * time.Millisecond
		sessions = append(sessions, session)
	}
	const keys, turns = 40, 5
	var wg sync.WaitGroup
	for key := range keys {
		for _, session := range sessions {
			l := lockIn(t, session, fmt.Sprint("/few/", key), "me")
			wg.Go(func() {
				for range turns {
					err := l.Run(etcdtest.Context(t), func(context.Context, *etcdlock.Held) error { return nil })
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	// What is done to one of many is noticed by a read that takes less than etcd allows.
	l := lockIn(t, sessions[0], "/few/one", "me")
	_, others := lockMany(t, sessions[0], keys)
	held := mustLock(t, l)
	must(t)(s.Client(t).Delete(etcdtest.Context(t), l.Key()))
	if lost := awaitLoss(t, held); lost.Reason != etcdlock.KeyDeleted {
		t.Error(lost)
	}
	for _, other := range others {
		if other.Err() != nil {
			t.Error(context.Cause(other))
		}
	}
}

// TestFewOperationsForSlots: slots need a few more.
func TestFewOperationsForSlots(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(10))
	session := newSession(t, s.Client(t))
	var wg sync.WaitGroup
	for range 6 {
		l := lockIn(t, session, "/few", "me")
		l.Mode = etcdlock.Slots(2)
		wg.Go(func() {
			for range 5 {
				err := l.Run(etcdtest.Context(t), func(context.Context, *etcdlock.Held) error { return nil })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestMayNotBeRead: a lock of a session whose keys may not be read any more is lost, and only that
// one. One that may be read again in time is not. Who waits for one waits no more.
func TestMayNotBeRead(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	session := newSession(t, etcdtest.Dial(t, newWorker(t, s, "/a", "/b", "/c", "/d")))
	root, ctx := s.Client(t), etcdtest.Context(t)
	session.TTL, session.RefreshInterval = 30*time.Second, 100*time.Millisecond
	held, locks := map[string]grip{}, map[string]*etcdlock.Lock{}
	for _, key := range []string{"/a", "/b", "/c"} {
		l := lockIn(t, session, key, "me")
		held[key], locks[key] = mustLock(t, l), l
	}
	newHolder(t, root, "/d", "holder")
	l := lockIn(t, session, "/d", "me")
	waits := queue(t, l)
	may := func(key string, what clientv3.PermissionType) {
		must(t)(root.RoleGrantPermission(ctx, "worker", key, "", what))
	}
	may("/b", clientv3.PermissionType(clientv3.PermWrite))
	may("/c", clientv3.PermissionType(clientv3.PermWrite))
	awaitRenewals(t, locks["/a"], held["/a"], 3)
	may("/d", clientv3.PermissionType(clientv3.PermWrite))
	may("/c", clientv3.PermissionType(clientv3.PermReadWrite))
	lost := awaitLoss(t, held["/b"])
	if lost.Reason != etcdlock.Unrenewed || !errors.Is(lost, rpctypes.ErrPermissionDenied) {
		t.Errorf("%v", lost)
	}
	<-held["/b"].Expired()
	if left := held["/b"].Remaining(); left > 0 {
		t.Errorf("the lock that may not be read is valid for %v", left)
	}
	if err := <-waits.got; !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("who waits: %v", err)
	}
	for _, key := range []string{"/a", "/c"} {
		if held[key].Err() != nil {
			t.Errorf("%s: %v", key, context.Cause(held[key]))
		}
	}
}

// TestLineMayNotBeRead: whoever may not read the line any more waits no longer than it would have
// kept a lock.
func TestLineMayNotBeRead(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, gate := newWorker(t, s, "/line"), etcdtest.NewGate(t, s.Endpoint())
	root, ctx := s.Client(t), etcdtest.Context(t)
	newHolder(t, root, "/line", "holder")
	must(t)(root.Put(ctx, "/line/stranger", "")) // it hides who is before
	below := clientv3.GetPrefixRangeEnd("/line/")
	inBoth(t, gate.Dial(t, worker), "/line", 10*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		l.Session().ConnectTimeout = ttl // logins take long on a busy machine
		var reads atomic.Int32
		gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
			if txn, ok := request.(*pb.TxnRequest); ok && kind.Of(txn) == "LineRead" && reads.Add(1) == 1 {
				return etcdtest.HoldRequest
			}
			return etcdtest.Pass
		})
		w := startLock(t, l)
		held := gate.AwaitHeld(t)
		for _, key := range [][2]string{{"/line", ""}, {"/line/", below}} {
			must(t)(root.RoleRevokePermission(ctx, "worker", key[0], key[1]))
		}
		held.Release()
		if err := <-w.got; !retry.IsDenied(err) || strings.Contains(err.Error(), "nil") {
			t.Errorf("Lock: %v", err)
		}
		for _, key := range [][2]string{{"/line", ""}, {"/line/", below}} {
			must(t)(root.RoleGrantPermission(ctx, "worker", key[0], key[1], clientv3.PermissionType(clientv3.PermReadWrite)))
		}
	})
}

// TestPermissionGoneForAWhile: what a session could not give back for want of a permission it gives
// back when it may, and its other locks are not concerned.
func TestPermissionGoneForAWhile(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	session, a := sessionLock(t, etcdtest.Dial(t, newWorker(t, s, "/a", "/b")), "/a", ttl)
	root := s.Client(t)
	b := lockIn(t, session, "/b", "me")
	heldA := mustLock(t, a)
	mustLock(t, b)
	ctx := etcdtest.Context(t)
	below := clientv3.GetPrefixRangeEnd("/b/")
	for _, key := range [][2]string{{"/b", ""}, {"/b/", below}} {
		must(t)(root.RoleRevokePermission(ctx, "worker", key[0], key[1]))
	}
	if err := b.Unlock(ctx); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("Unlock: %v", err)
	}
	other := queue(t, newLock(t, root, "/b", "other"))
	for _, key := range [][2]string{{"/b", ""}, {"/b/", below}} {
		must(t)(root.RoleGrantPermission(ctx, "worker", key[0], key[1], clientv3.PermissionType(clientv3.PermReadWrite)))
	}
	other.mustGet(t)
	if heldA.Err() != nil {
		t.Error(context.Cause(heldA))
	}
}

// TestTailAllowedLater: who was denied all once, and may do all later, stands in line as others do.
func TestTailAllowedLater(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	l := newLock(t, etcdtest.Dial(t, newWorker(t, s)), "/later", "me")
	root, ctx := s.Client(t), etcdtest.Context(t)
	if _, err := l.Lock(ctx); !retry.IsDenied(err) {
		t.Errorf("Lock: %v", err)
	}
	all := clientv3.GetPrefixRangeEnd("/later")
	must(t)(root.RoleGrantPermission(ctx, "worker", "/later", all, clientv3.PermissionType(clientv3.PermReadWrite)))
	holder := newHolder(t, root, "/later", "holder")
	w := queue(t, l)
	awaitKeys(t, root, "/later/", 2)
	if tail, err := root.Get(ctx, wire.Tail("/later")); err != nil || len(tail.Kvs) != 1 {
		t.Errorf("it stands in line without the tail: %v, %v", tail, err)
	}
	mustUnlock(t, holder)
	w.mustGet(t)
}
