package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
)

// TestSessionClosedAsALockIsGranted: a lock that has been won already is not handed out as if it
// were held.
func TestSessionClosedAsALockIsGranted(t *testing.T) {
	s := etcdtest.Start(t)
	session, l := sessionLock(t, s.Client(t), "/granted", ttl)
	l.OnGranted(func() {
		if err := session.Close(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
	})
	if held, err := gripOf(l.Lock(etcdtest.Context(t))); !errors.Is(err, etcdlock.ErrClosed) && held.Err() == nil {
		t.Errorf("Lock: %v, and its context goes on", err)
	}
	newHolder(t, s.Client(t), "/granted", "next")
}

// TestPausedAsALockIsGranted: a pause between the look at the clock and the grant, after which etcd
// cannot be reached, does not cost the keeper's attention.
func TestPausedAsALockIsGranted(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	session, l := sessionLock(t, behind, "/paused", 2*time.Second)
	session.ConnectTimeout = 5 * time.Second // for which it is silent
	l.OnGranted(func() {
		link.Silence()
		time.Sleep(2 * time.Second) // the pause
	})
	held, err := gripOf(l.Lock(etcdtest.Context(t)))
	link.Restore()
	if err != nil {
		return
	}
	expired := l.Holding().Expired()
	newHolder(t, s.Client(t), "/paused", "next")
	select {
	case <-held.Done():
		<-expired
	case <-time.After(time.Second): // it had to be done before the other one got the lock
		t.Error("two hold the lock, and one is not told")
	}
}

// TestUnlockInVain: an Unlock that could not do anything, in a session whose lease lives on, does
// not leave the lock behind.
func TestUnlockInVain(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	_, l := sessionLock(t, behind, "/vain", ttl)
	mustLock(t, l)
	link.Silence()
	if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("Unlock: %v", err)
	}
	link.Restore()
	newHolder(t, s.Client(t), "/vain", "next")
}

// TestClearedUpLate: what removes a lost lock of a session, and comes late, does not hit the next
// holding of the same Lock.
func TestClearedUpLate(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	hit := intercept(gate, 1, etcdtest.HoldRequest, "Release")
	client, ctx := s.Client(t), etcdtest.Context(t)
	_, l := sessionLock(t, behind, "/late-clearing", ttl)
	held := mustLock(t, l)
	must(t)(client.Delete(ctx, "/late-clearing", clientv3.WithPrefix()))
	if lost := awaitLoss(t, held); !lost.Reason.Forced() {
		t.Error(lost)
	}
	if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("Unlock: %v", err)
	}
	<-hit
	again := mustLock(t, l)
	gate.AwaitHeld(t).Release()
	next := queue(t, newLock(t, client, "/late-clearing", "next"))
	select {
	case <-again.Done():
		t.Errorf("lost: %v", context.Cause(again))
	case <-next.got:
		t.Error("two hold the lock")
	case <-time.After(2 * time.Second): // the repetition of what was held comes after one
	}
	mustUnlock(t, l)
	next.mustGet(t)
}

// TestNoKeyOfAnUnknownPlace: of a place in line of which its contender has never heard nothing is
// left, not even the tail.
func TestNoKeyOfAnUnknownPlace(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	hit := intercept(gate, 1, etcdtest.FailApplied, "Acquire")
	client := s.Client(t)
	_, l := sessionLock(t, behind, "/unknown", ttl)
	holder := newHolder(t, client, "/unknown", "holder")
	w := startLock(t, l)
	<-hit
	w.leave()
	if err := <-w.got; err == nil {
		t.Error("two hold the lock")
	}
	mustUnlock(t, holder)
	awaitKeys(t, client, "", 0)
}

// TestRefusedForAWhile: a session that etcd refuses for a time tries to take one place again and
// again, and not one after another, each of which it would have to clear up.
func TestRefusedForAWhile(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	_, l := sessionLock(t, behind, "/refused", ttl)
	places := make(map[string]bool) // hooks do not overlap
	began := time.Now()
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if kindOf(method, request) == "Acquire" {
			places[string(request.(*pb.TxnRequest).Success[1].GetRequestPut().Key)] = true
		}
		if time.Since(began) < time.Second {
			return etcdtest.Fail
		}
		return etcdtest.Pass
	})
	mustLock(t, l)
	gate.Intercept(nil)
	if len(places) != 1 {
		t.Errorf("it has tried to take %d places", len(places))
	}
	mustUnlock(t, l)
	if err := l.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	awaitKeys(t, s.Client(t), "", 0)
}

// TestForbiddenKeyInASession: a lock that may not be touched does not cost the others of its
// session their lease.
func TestForbiddenKeyInASession(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	config := newWorker(t, s, "/allowed")
	session := newSession(t, etcdtest.Dial(t, config)) // each request checks a password
	session.RefreshInterval = 2 * time.Second
	if err := session.Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	forbidden := lockIn(t, session, "/forbidden", "me")
	if _, err := forbidden.Lock(etcdtest.Context(t)); err == nil {
		t.Error("a lock that may not be touched was acquired")
	}
	allowed := lockIn(t, session, "/allowed", "me")
	held := mustLock(t, allowed)
	awaitRenewals(t, allowed, held, 3)
}

// TestPredecessorsLeaseIsGone: who leaves the line behind a place that an operator has taken off
// its lease, which has ended, keeps the lease of its own session.
func TestPredecessorsLeaseIsGone(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session, l := sessionLock(t, client, "/gone", ttl)
	other := lockIn(t, session, "/other", "me")
	held := mustLock(t, other)
	newHolder(t, client, "/gone", "holder")
	link, behind := s.Linked(t)
	queue(t, newLock(t, behind, "/gone", "predecessor"))
	w := queue(t, l)
	link.Silence() // it would take its place away
	before := placeOf(t, client, "/gone", "predecessor")
	must(t)(client.Put(ctx, before.key, "by hand"))
	must(t)(client.Revoke(ctx, before.lease))
	w.mustLeave(t)
	awaitKeys(t, client, "/gone/", 2)
	if err := other.Holding().Refresh(ctx); err != nil || held.Err() != nil {
		t.Errorf("Refresh: %v, %v", err, context.Cause(held))
	}
}

// TestNotIdleAfterALeave: the lock does not lie idle because somebody behind the holder has left.
func TestNotIdleAfterALeave(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	var idle time.Duration
	const turns = 10
	for range turns {
		holder := newHolder(t, client, "/idle", "holder")
		leaver, next := queue(t, newLock(t, client, "/idle", "leaver")), queue(t, newLock(t, client, "/idle", "next"))
		awaitNextKnown(t, holder)
		leaver.mustLeave(t)
		began := time.Now()
		mustUnlock(t, holder)
		next.mustGet(t)
		idle += time.Since(began)
		mustUnlock(t, next.Lock)
	}
	// With half a second to wait for in each it would be seconds.
	if idle > turns*100*time.Millisecond {
		t.Errorf("%v on average", idle/turns)
	}
	t.Logf("%v on average", idle/turns)
}

// TestLostBeforeItIsHandedOut: a Lock whose lease ends as it gets the lock gets it again.
func TestLostBeforeItIsHandedOut(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	session, l := sessionLock(t, client, "/lost-early", ttl)
	other := lockIn(t, session, "/other", "me")
	sign := mustLock(t, other) // of what the session knows of its lease
	var once sync.Once
	l.OnGranted(func() {
		once.Do(func() {
			if _, err := client.Revoke(etcdtest.Context(t), sign.Lease()); err != nil {
				t.Error(err)
			}
			<-sign.Done()
			awaitNoWatch(t, l) // l has heard of it as well
		})
	})
	held := mustLock(t, l)
	if held.Err() != nil || !applied(t, client, held.IsHolder()) {
		t.Errorf("what Lock returned is lost: %v", context.Cause(held))
	}
}

// TestManyUnknownPlaces: a session is not kept busy by places that may never be created, also if a
// lock of it is held all the time. It takes another lease, and ends the one before with its last
// lock.
func TestManyUnknownPlaces(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	session, sign := sessionLock(t, behind, "/sign", ttl)
	mustLock(t, sign)
	var late []*etcdtest.Held
	intercept(gate, every, etcdtest.HoldRequest, joins...)
	for range 10 {
		w := startLock(t, lockIn(t, session, "/unknowns", "late"))
		late = append(late, gate.AwaitHeld(t))
		w.mustLeave(t)
	}
	gate.Intercept(nil)
	l := lockIn(t, session, "/unknowns", "me")
	if held := mustLock(t, l); held.Lease() != sign.Holding().Lease() {
		t.Error("another lease was taken for places whose requests may be answered soon")
	}
	mustUnlock(t, l)
	for range 30 {
		hit := intercept(gate, 1, etcdtest.Fail, joins...)
		mustLock(t, l)
		<-hit
		mustUnlock(t, l)
	}
	const most = 3 + 10 + 2*8 // the held one's, the late ones', and those of two leases
	if n := l.Watched(); n > most {
		t.Errorf("%d watches", n)
	}
	awaitLeases(t, client, 2)

	for _, one := range late[1:] {
		if err := one.Release(); err != nil {
			t.Errorf("under the lease of a lock that is held: %v", err)
		}
	}
	awaitKeys(t, client, "/unknowns/", 0)
	mustUnlock(t, sign)
	awaitLeases(t, client, 1)
	if err := late[0].Release(); err == nil {
		t.Error("what comes late is not fenced off")
	}
	mustLock(t, l)
}

// awaitLeases waits until etcd has n leases.
func awaitLeases(t testing.TB, client *clientv3.Client, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d leases", n), func() (bool, any) {
		leases, err := client.Leases(etcdtest.Context(t))
		return err == nil && len(leases.Leases) == n, leases
	})
}

// TestOverwrittenAndNotRevoked: a place that an operator has taken off its lease is removed when
// etcd answers, also if Close was told nothing, and the lease runs out meanwhile.
func TestOverwrittenAndNotRevoked(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for name, lost := range map[string][]string{
		"revocation": {"revoke"}, "comparison and revocation": {"Read", "revoke"},
	} {
		t.Run(name, func(t *testing.T) {
			gate, behind := s.Gated(t)
			l := newLock(t, behind, "/off", "me")
			l.Session().TTL = 2 * time.Second
			mustLock(t, l)
			must(t)(client.Put(ctx, placeOf(t, client, "/off", "me").key, "by hand"))
			intercept(gate, every, etcdtest.Drop, lost...)
			err := l.Close(ctx)
			if !errors.Is(err, etcdlock.ErrUnconfirmed) || strings.Count(err.Error(), "not confirmed") != 1 {
				t.Errorf("Close: %v", err)
			}
			gate.Intercept(nil)
			awaitKeys(t, client, "/off/", 0) // who has a Mutex would wait behind it
		})
	}
}

// TestManyUnreadable: however many locks of a session may not be read any more, each renewal counts
// for the one that may.
func TestManyUnreadable(t *testing.T) {
	s := etcdtest.Start(t)
	worker := newWorker(t, s, "/healthy", "/many")
	asked := &census{Gate: etcdtest.NewGate(t, s.Endpoint())}
	asked.Intercept(asked.count)
	session := newSession(t, asked.Dial(t, worker))
	session.RefreshInterval = 100 * time.Millisecond
	var counted atomic.Int64
	session.Logger = onMessage("lease renewed", func() { counted.Add(1) })
	held := mustLock(t, lockIn(t, session, "/healthy", "me"))
	lockMany(t, session, 200) // one renewal reads 32 of them
	permit(t, s, "/many/", clientv3.PermWrite)
	before, made := counted.Load(), asked.renewals.Load()
	const times = 4
	await(t, "renewals", func() (bool, any) { n := counted.Load() - before; return n >= times, n })
	if made = asked.renewals.Load() - made; made > 2*(counted.Load()-before) {
		t.Errorf("%d renewals were made, and %d counted", made, counted.Load()-before)
	}
	if held.Err() != nil {
		t.Error(context.Cause(held))
	}
}

// TestLockBesideAnUnreadableOne: that the lock which a session had last may not be read any more
// does not keep it from another.
func TestLockBesideAnUnreadableOne(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	session := newSession(t, etcdtest.Dial(t, newWorker(t, s, "/last", "/next")))
	session.TTL, session.RefreshInterval, session.Grace = 10*time.Second, 500*time.Millisecond, 6*time.Second
	l := lockIn(t, session, "/last", "me")
	mustLock(t, l)
	mustUnlock(t, l)
	permit(t, s, "/last", clientv3.PermWrite)
	permit(t, s, "/last/", clientv3.PermWrite)
	time.Sleep(3 * time.Second) // nothing tells that the lease must be renewed before its next use
	mustLock(t, lockIn(t, session, "/next", "me"))
	if _, err := l.Lock(etcdtest.Context(t)); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("Lock of what may not be read: %v", err)
	}
}

// TestPreparedLongAgo: the lease of a session that never held a lock is known to be valid before a
// lock stands in line under it.
func TestPreparedLongAgo(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session, l := sessionLock(t, behind, "/long-ago", 5*time.Second)
	time.Sleep(session.TTL)         // nothing tells that validity has ended
	places := make(map[string]bool) // hooks do not overlap
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if !slices.Contains(joins, kindOf(method, request)) {
			return etcdtest.Pass
		}
		place := string(request.(*pb.TxnRequest).Success[1].GetRequestPut().Key)
		if places[place] || len(places) == 3 {
			return etcdtest.Pass
		}
		places[place] = true
		return etcdtest.Drop
	})
	mustLock(t, l)
	gate.Intercept(nil)
	if len(places) != 1 {
		t.Errorf("it has tried to take %d places", len(places))
	}
}

// TestPreparedAgain: without a lock whose key it could read, a session takes a lease that is valid
// in place of one that is not known to be.
func TestPreparedAgain(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	session, l := sessionLock(t, s.Client(t), "/prepared-again", 2*time.Second)
	client, ctx := s.Client(t), etcdtest.Context(t)
	lease := func() clientv3.LeaseID {
		resp, err := client.Leases(ctx)
		if err != nil || len(resp.Leases) != 1 {
			t.Fatal(resp, err)
		}
		return resp.Leases[0].ID
	}
	first := lease()
	time.Sleep(session.TTL) // nothing tells that validity has ended
	if err := session.Prepare(ctx); err != nil {
		t.Fatal(err)
	}
	if held := mustLock(t, l); held.Lease() == first || held.Lease() != lease() {
		t.Errorf("it is held under %x, the first lease is %x, and there is %x", held.Lease(), first, lease())
	}
}

// TestRenewedFromTheFirstLockOn: a lock does not wait for its renewal as long as a session without
// locks does.
func TestRenewedFromTheFirstLockOn(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	session.TTL, session.RefreshInterval = time.Minute, 8*time.Second
	counted := make(chan struct{}, 100)
	session.Logger = onMessage("lease renewed", func() { counted <- struct{}{} })
	answered := make(chan struct{}, 100)
	gate.InterceptAnswers(func(_ string, message proto.Message) etcdtest.Verdict {
		if _, ok := message.(*pb.LeaseKeepAliveResponse); ok {
			answered <- struct{}{}
		}
		return etcdtest.Pass
	})
	if err := session.Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	<-answered
	revisionOf(t, behind) // by then it is known that there was nothing to read
	mustLock(t, lockIn(t, session, "/first", "me"))
	held := time.Now()
	<-counted
	if took := time.Since(held); took > session.RefreshInterval*3/4 {
		t.Errorf("renewed after %v", took)
	}
}
