package etcdlock_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestTenThousandLocks: what they cost while they are held. The etcd is a process of its own, so
// the memory is the client's alone.
func TestTenThousandLocks(t *testing.T) {
	if testing.Short() {
		etcdtest.Skip(t, "with -short, for the race detector: memory is measured without it")
	}
	const n, most = 10_000, 4096
	p := etcdtest.StartProcess(t)
	client := p.Client(t)
	session := newSession(t, client)
	session.RefreshInterval = time.Second
	for range 2 { // the first time, everything that is needed once is made
		first := lockIn(t, session, "/first", "me")
		mustLock(t, first)
		mustUnlock(t, first)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	locks, held := lockMany(t, session, n)
	one := locks[0] // the others are not kept: what is counted is what is held
	awaitWatches(t, one, 3*n)
	awaitRenewals(t, one, held[0], 2) // so that whatever a renewal leaves behind is counted
	each := (heap() - before) / n
	for try := 0; each > most && try < 10; try++ { // on a busy machine more is under way
		awaitRenewals(t, one, held[0], 1)
		each = (heap() - before) / n
	}
	if each > most {
		t.Errorf("a held lock takes %d bytes, at most %d are wanted", each, most)
	} else {
		t.Logf("a held lock takes %d bytes", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 40 {
		t.Errorf("%d goroutines for %d locks", more, n)
	}
	for i := range held {
		if held[i].Err() != nil {
			t.Fatalf("lock %d: %v", i, context.Cause(held[i]))
		}
	}
	began := time.Now()
	if err := session.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	t.Logf("closed in %v", time.Since(began))
	for i := range held {
		if !errors.Is(context.Cause(held[i]), etcdlock.ErrNotHeld) {
			t.Fatalf("lock %d after Close: %v", i, context.Cause(held[i]))
		}
	}
	awaitKeys(t, client, "", 0)
}

// TestOneRenewalForAll counts what a session asks of etcd while its locks are idle: per refresh one
// renewal and one read.
func TestOneRenewalForAll(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, counted := newCensus(t, s)
	session := newSession(t, client)
	session.RefreshInterval = 200 * time.Millisecond
	locks, held := lockMany(t, session, 200)
	awaitWatches(t, locks[0], 600)
	awaitRenewals(t, locks[0], held[0], 2)
	renewals, reads := counted.renewals.Load(), counted.reads.Load()
	awaitRenewals(t, locks[0], held[0], 5)
	renewals, reads = counted.renewals.Load()-renewals, counted.reads.Load()-reads
	if reads > renewals+2 {
		t.Errorf("%d reads for %d renewals", reads, renewals)
	}
	for i := range held {
		if held[i].Err() != nil {
			t.Fatal(context.Cause(held[i]))
		}
		mustUnlock(t, locks[i])
	}
}

// TestSilentWatches: the locks of a session of which no read looks at all are not left to a stream
// of watches that is open and says nothing, whether those opened after it speak or not. To read all
// of them in turn would take fifty renewals.
func TestSilentWatches(t *testing.T) {
	for name, each := range map[string]bool{"one stream": false, "each stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSilentWatches(t, each)
		})
	}
}

func testSilentWatches(t *testing.T, each bool) {
	const n = 1600
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	session.TTL, session.RefreshInterval = time.Minute, time.Second
	locks, held := lockMany(t, session, n)
	awaitWatches(t, locks[0], 3*n)
	anew := false
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		w, ok := answer.(*pb.WatchResponse)
		if anew = anew || ok && w.Created; ok && (each || !anew) { // not anew: of the old stream
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	count, renewals := etcdtest.Counting("LeaseKeepAlive")
	gate.Intercept(count)
	client := s.Client(t)
	for i := 0; i < n; i += n / 16 {
		must(t)(client.Delete(etcdtest.Context(t), locks[i].Key()))
	}
	for i := 0; i < n; i += n / 16 {
		if lost := awaitLoss(t, held[i]); lost.Reason != etcdlock.KeyDeleted {
			t.Errorf("lock %d: %v", i, lost)
		}
	}
	if got := renewals.Load(); got > 20 {
		t.Errorf("noticed after %d renewals", got)
	}
	if held[1].Err() != nil {
		t.Error(context.Cause(held[1]))
	}
}

// TestLocksOfASessionAreIndependent: what is done to one of them is not done to the others, also if
// they have one key.
func TestLocksOfASessionAreIndependent(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	locks, held := lockMany(t, session, 5)
	twin := lockIn(t, session, locks[0].Key(), "twin")
	if _, err := twin.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("two locks with one key: %v", err)
	}
	waits := queue(t, twin)
	mustUnlock(t, locks[0])
	waits.mustGet(t)

	must(t)(client.Delete(ctx, placeOf(t, client, locks[1].Key(), "me").key))
	if lost := awaitLoss(t, held[1]); lost.Reason != etcdlock.PlaceLost {
		t.Error(lost)
	}
	<-held[1].Expired()
	await(t, "what is left of it to be removed", func() (bool, any) {
		left, err := client.Get(ctx, locks[1].Key())
		return err == nil && len(left.Kvs) == 0, left
	})
	must(t)(client.Delete(ctx, locks[2].Key()))
	if lost := awaitLoss(t, held[2]); lost.Reason != etcdlock.KeyDeleted {
		t.Error(lost)
	}
	if err := locks[2].Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Error(err)
	}
	for _, i := range []int{3, 4} {
		if held[i].Err() != nil {
			t.Errorf("lock %d: %v", i, context.Cause(held[i]))
		}
	}
	mustLock(t, locks[1])
	mustLock(t, locks[2])
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	if _, err := locks[3].Lock(ctx); !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("Lock after Close: %v", err)
	}
	s.Empty(t)
}

// TestSessionLosesItsLease: all that is held is lost, who waits takes a new place, and the session
// goes on.
func TestSessionLosesItsLease(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := newHolder(t, client, "/other", "holder")
	session := newSession(t, client)
	session.TTL = time.Hour // no renewal will tell
	locks, held := lockMany(t, session, 40)
	waiting := lockIn(t, session, "/other", "waits")
	waits := queue(t, waiting)
	must(t)(client.Revoke(ctx, held[0].Lease()))
	for i := range held {
		if lost := awaitLoss(t, held[i]); lost.Reason != etcdlock.LeaseLost {
			t.Errorf("lock %d: %v", i, lost)
		}
		<-held[i].Expired()
	}
	mustUnlock(t, holder)
	waits.mustGet(t)
	mustUnlock(t, waiting)
	mustLock(t, locks[7])
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := holder.Close(ctx); err != nil {
		t.Error(err)
	}
	s.Empty(t)
}

// TestSessionGoesSilent: validity ends for all locks at once, before the lease does, and the
// session works again after the outage.
func TestSessionGoesSilent(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	direct, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, behind)
	session.TTL = 6 * time.Second
	locks, held := lockMany(t, session, 20)
	link.Silence()
	for i := range held {
		if lost := awaitLoss(t, held[i]); lost.Reason != etcdlock.Unrenewed {
			t.Errorf("lock %d: %v", i, lost)
		}
	}
	for i := range held {
		<-held[i].Expired()
	}
	if n := len(etcdtest.Keys(t, direct, "/many/")); n < 20 {
		t.Errorf("etcd had freed locks before their holder gave them up: %d keys are left", n)
	}
	link.Restore()
	awaitKeys(t, direct, "", 0) // whether anybody unlocks or not
	for _, l := range locks {
		if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("Unlock: %v", err)
		}
		mustLock(t, l)
	}
}

// TestUnknownOutcomesInASession loses the request or the answer of a write, for good or until
// later, of a session that has other locks: those are kept, nothing is left of the place in doubt,
// and what comes late is taken back.
func TestUnknownOutcomesInASession(t *testing.T) {
	t.Parallel()
	forVerdicts(t, []string{"Acquire", "Leave", "Release"}, func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict) {
		gate, behind := s.Gated(t)
		hit := intercept(gate, 1, verdict, kind)
		client, ctx := s.Client(t), etcdtest.Context(t)
		session := newSession(t, behind)
		session.TTL = 4 * time.Second
		other := lockIn(t, session, "/kept", "kept")
		// Of another form than the acquire that is disturbed.
		must(t)(other.TryLock(ctx))
		holder := newHolder(t, client, "/doubt", "holder")
		l := lockIn(t, session, "/doubt", "me")
		w := queue(t, l)
		if kind == "Leave" {
			w.mustLeave(t)
		}
		mustUnlock(t, holder)
		if kind != "Leave" {
			w.mustGet(t)
			if err := l.Unlock(ctx); err != nil {
				t.Error(err)
			}
		}
		select {
		case <-hit:
		case <-ctx.Done():
			t.Fatalf("no %s was made", kind)
		}
		if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
			gate.AwaitHeld(t).Release()
		}
		awaitKeys(t, client, "/doubt", 0)
		mustUnlock(t, newHolder(t, client, "/doubt", "after"))
		mustLock(t, l)
		mustUnlock(t, l)
		if err := other.Unlock(ctx); err != nil {
			t.Errorf("the other lock: %v", err)
		}
	})
}

// TestSessionClosedUnderway: whoever gets a lock of a session, and hears of it when the session has
// been closed, does not keep it beside the next holder.
func TestSessionClosedUnderway(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	intercept(gate, 1, etcdtest.HoldAnswer, "Acquire")
	session := newSession(t, behind)
	l := lockIn(t, session, "/underway", "me")
	w := startLock(t, l)
	acquired := gate.AwaitHeld(t)
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	newHolder(t, s.Client(t), "/underway", "next")
	if err := acquired.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-w.got; err == nil && w.held.Err() == nil {
		t.Error("two hold the lock")
	}
}

// TestUnlockedAsItsSessionIsClosed: whoever unlocks at the moment at which the session is closed is
// not told of a loss.
func TestUnlockedAsItsSessionIsClosed(t *testing.T) {
	s := etcdtest.Start(t)
	others := newSession(t, s.Client(t))
	for range 20 {
		session := newSession(t, s.Client(t))
		locks, _ := lockMany(t, session, 20)
		var line []*waiter // who gets the lock may be seen there
		for _, l := range locks[:10] {
			line = append(line, queue(t, lockIn(t, others, l.Key(), "waits")))
		}
		var unlocks sync.WaitGroup
		for _, l := range locks {
			unlocks.Go(func() {
				var lost *etcdlock.LostError
				if err := l.Unlock(etcdtest.Context(t)); errors.As(err, &lost) {
					t.Error(err)
				}
			})
		}
		if err := session.Close(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
		unlocks.Wait()
		for _, w := range line {
			w.mustGet(t)
			mustUnlock(t, w.Lock)
		}
	}
	awaitKeys(t, s.Client(t), "", 0)
}

// TestSessionClosedBesideASlowUnlock: Close waits for an Unlock that is under way, but not long.
// What that finds behind the revocation does not say that the lock was lost.
func TestSessionClosedBesideASlowUnlock(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	l := lockIn(t, session, "/slow", "me")
	mustLock(t, l)
	intercept(gate, 1, etcdtest.HoldRequest, "Release")
	unlocked := make(chan error, 1)
	go func() { unlocked <- l.Unlock(context.Background()) }()
	asked := gate.AwaitHeld(t)
	soon, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := session.Close(soon); err != nil {
		t.Error(err)
	}
	asked.Release() // too late if it has asked again
	if err := <-unlocked; err != nil && (!errors.Is(err, etcdlock.ErrUnconfirmed) || errors.Is(err, etcdlock.ErrNotHeld)) {
		t.Errorf("Unlock: %v", err)
	}
	awaitKeys(t, s.Client(t), "", 0)
}

// TestLostAsItsSessionIsClosed: a lock that somebody else has was not given back, although its
// session is closed at the moment at which it is unlocked.
func TestLostAsItsSessionIsClosed(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	others := newSession(t, s.Client(t))
	for range 20 {
		session := newSession(t, s.Client(t))
		locks, held := lockMany(t, session, 10)
		set, err := session.NewSet([]string{"/set/1", "/set/2"}, "me")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.Lock(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Client(t).Revoke(ctx, held[0].Lease()); err != nil {
			t.Fatal(err)
		}
		unlocks := map[string]func(context.Context) error{"/set/1": set.Unlock}
		for _, l := range locks {
			unlocks[l.Key()] = l.Unlock
		}
		var next []*etcdlock.Lock
		for key := range unlocks {
			l := lockIn(t, others, key, "next")
			mustLock(t, l)
			next = append(next, l)
		}
		var all sync.WaitGroup
		for key, unlock := range unlocks {
			all.Go(func() {
				if err := unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("%s: %v", key, err)
				}
			})
		}
		if err := session.Close(ctx); err != nil {
			t.Error(err)
		}
		all.Wait()
		for _, l := range next {
			mustUnlock(t, l)
		}
	}
}

// TestSetLostBesideClose: what etcd has told of one lock of a set counts, though the session is
// closed before it has told of the other one.
func TestSetLostBesideClose(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	intercept(gate, every, etcdtest.Drop, "watch") // nobody hears of what comes
	session := newSession(t, behind)
	set := setIn(t, session, "me", "/a", "/b")
	mustLockSet(t, set)
	for _, key := range []string{"/a", "/b"} {
		must(t)(s.Client(t).Put(etcdtest.Context(t), key, "by hand"))
	}
	removals := 0
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if strings.Contains(kindOf(method, request), "Lost") {
			removals++
		}
		if removals == 2 {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	unlocked := make(chan error, 1)
	go func() { unlocked <- set.Unlock(context.Background()) }()
	asked := gate.AwaitHeld(t)
	soon, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	session.Close(soon)
	asked.Release()
	var lost *etcdlock.LostError
	if err := <-unlocked; !errors.As(err, &lost) || lost.Key != "/a" || !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("it says %v", err)
	}
}
