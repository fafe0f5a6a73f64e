package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// lockMany acquires n locks of a session and returns them with their contexts.
func lockMany(t testing.TB, session *etcdlock.Session, n int) (locks []*etcdlock.Lock, held []grip) {
	t.Helper()
	locks, held = make([]*etcdlock.Lock, n), make([]grip, n)
	ctx := etcdtest.Context(t)
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < n; i += 32 {
				l, err := session.NewLock(fmt.Sprintf("/many/%d", i), "me")
				if err == nil {
					locks[i] = l
					held[i], err = gripOf(l.Lock(ctx))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return locks, held
}

// awaitWatches waits until the client of a lock watches so many keys at least.
func awaitWatches(t testing.TB, l *etcdlock.Lock, n int) {
	t.Helper()
	etcdtest.Await(t, "all to be watched", func(context.Context) error {
		if got := l.Watches(); got < n {
			return fmt.Errorf("%d watches", got)
		}
		return nil
	})
}

// awaitNoWatch waits until the client of a lock has not asked to watch anything.
func awaitNoWatch(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	etcdtest.Await(t, "all watches to end", func(context.Context) error {
		if n := l.Watched(); n > 0 {
			return fmt.Errorf("%d watches", n)
		}
		return nil
	})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

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
		first, err := session.NewLock("/first", "me")
		if err != nil {
			t.Fatal(err)
		}
		mustLock(t, first)
		mustUnlock(t, first)
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	locks, held := lockMany(t, session, n)
	awaitWatches(t, locks[0], 3*n)
	renewed(t, locks[0], held[0], 2) // so that whatever a renewal leaves behind is counted
	if each := (heap() - before) / n; each > most {
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
	noKeys(t, client)
}

// TestOneRenewalForAll counts what a session asks of etcd while its locks are idle: per refresh one
// renewal and one read.
func TestOneRenewalForAll(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, counted := behindCensus(t, s)
	session := newSession(t, client)
	session.RefreshInterval = 200 * time.Millisecond
	locks, held := lockMany(t, session, 200)
	awaitWatches(t, locks[0], 600)
	awaitRenewals(t, counted, 2)
	renewals, reads := counted.renewals.Load(), counted.reads.Load()
	awaitRenewals(t, counted, 5)
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

func awaitRenewals(t testing.TB, c *census, n int64) {
	t.Helper()
	from := c.renewals.Load()
	etcdtest.Await(t, "renewals", func(context.Context) error {
		if got := c.renewals.Load() - from; got < n {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

// TestSilentWatches: the locks of a session of which no read looks at all are not left to a stream
// of watches that is open and says nothing. To read all of them in turn would take fifty renewals.
func TestSilentWatches(t *testing.T) {
	t.Parallel()
	const n = 1600
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	session, err := etcdlock.NewSession(behind, 8*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	session.RefreshInterval = time.Second
	t.Cleanup(func() { session.Close(context.Background()) })
	locks, held := lockMany(t, session, n)
	awaitWatches(t, locks[0], 3*n)
	anew := false
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		w, ok := answer.(*pb.WatchResponse)
		if anew = anew || ok && w.Created; ok && !anew { // up to now the stream is the old one
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	var renewals atomic.Int64
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if _, ok := request.(*pb.LeaseKeepAliveRequest); ok {
			renewals.Add(1)
		}
		return etcdtest.Pass
	})
	client := s.Client(t)
	for i := 0; i < n; i += n / 16 {
		if _, err := client.Delete(etcdtest.Context(t), locks[i].Key()); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < n; i += n / 16 {
		if lost := causeOf(t, held[i]); lost.Reason != etcdlock.KeyDeleted {
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
	twin, err := session.NewLock(locks[0].Key(), "twin")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.TryLock(ctx); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("two locks with one key: %v", err)
	}
	waits := queue(t, twin)
	mustUnlock(t, locks[0])
	waits.mustGet(t)

	if _, err := client.Delete(ctx, placeWith(t, client, locks[1].Key()+"/", "me")); err != nil {
		t.Fatal(err)
	}
	if lost := causeOf(t, held[1]); lost.Reason != etcdlock.PlaceLost {
		t.Error(lost)
	}
	<-held[1].Expired()
	etcdtest.Await(t, "what is left of it to be removed", func(ctx context.Context) error {
		resp, err := client.Get(ctx, locks[1].Key())
		if err == nil && len(resp.Kvs) > 0 {
			err = errors.New("the key is there")
		}
		return err
	})
	if _, err := client.Delete(ctx, locks[2].Key()); err != nil {
		t.Fatal(err)
	}
	if lost := causeOf(t, held[2]); lost.Reason != etcdlock.KeyDeleted {
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
	holder := newLock(t, client, "/other", "holder")
	mustLock(t, holder)
	session := newSession(t, client)
	session.TTL = time.Hour // no renewal will tell
	locks, held := lockMany(t, session, 40)
	waiting, err := session.NewLock("/other", "waits")
	if err != nil {
		t.Fatal(err)
	}
	waits := queue(t, waiting)
	if _, err := client.Revoke(ctx, held[0].Lease()); err != nil {
		t.Fatal(err)
	}
	for i := range held {
		if lost := causeOf(t, held[i]); lost.Reason != etcdlock.LeaseLost {
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
	s := etcdtest.Start(t)
	link, behind := linked(t, s)
	direct, ctx := s.Client(t), etcdtest.Context(t)
	session, err := etcdlock.NewSession(behind, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close(context.Background()) })
	locks, held := lockMany(t, session, 20)
	link.Silence()
	for i := range held {
		if lost := causeOf(t, held[i]); lost.Reason != etcdlock.Unrenewed {
			t.Errorf("lock %d: %v", i, lost)
		}
	}
	for i := range held {
		<-held[i].Expired()
	}
	resp, err := direct.Get(ctx, "/many/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count < 20 {
		t.Errorf("etcd had freed locks before their holder gave them up: %d keys are left", resp.Count)
	}
	link.Restore()
	noKeys(t, direct) // whether anybody unlocks or not
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
	for _, kind := range []string{"Acquire", "Leave", "Release"} {
		for name, verdict := range verdicts {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, gate, behind, hit := startGated(t, kind, verdict)
				client, ctx := s.Client(t), etcdtest.Context(t)
				session, err := etcdlock.NewSession(behind, 4*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { session.Close(context.Background()) })
				other, err := session.NewLock("/kept", "kept")
				if err != nil {
					t.Fatal(err)
				}
				// Of another form than the acquire that is disturbed.
				if _, err := other.TryLock(ctx); err != nil {
					t.Fatal(err)
				}
				holder := newLock(t, client, "/doubt", "holder")
				mustLock(t, holder)
				l, err := session.NewLock("/doubt", "me")
				if err != nil {
					t.Fatal(err)
				}
				w := queue(t, l)
				if kind == "Leave" {
					w.leave()
					if err := <-w.got; !errors.Is(err, context.Canceled) {
						t.Error(err)
					}
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
				etcdtest.Await(t, "the line to be empty", func(ctx context.Context) error {
					resp, err := client.Get(ctx, "/doubt", clientv3.WithPrefix())
					if err == nil && len(resp.Kvs) > 0 {
						err = fmt.Errorf("%v is there", resp.Kvs)
					}
					return err
				})
				again := newLock(t, client, "/doubt", "after")
				mustLock(t, again)
				mustUnlock(t, again)
				mustLock(t, l)
				mustUnlock(t, l)
				if err := other.Unlock(ctx); err != nil {
					t.Errorf("the other lock: %v", err)
				}
			})
		}
	}
}

// TestSessionClosedUnderway: whoever gets a lock of a session, and hears of it when the session has
// been closed, does not keep it beside the next holder.
func TestSessionClosedUnderway(t *testing.T) {
	s, gate, behind, _ := startGated(t, "Acquire", etcdtest.HoldAnswer)
	ctx := etcdtest.Context(t)
	session := newSession(t, behind)
	l, err := session.NewLock("/underway", "me")
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		held grip
		err  error
	}
	got := make(chan result, 1)
	go func() {
		held, err := gripOf(l.Lock(ctx))
		got <- result{held, err}
	}()
	acquired := gate.AwaitHeld(t)
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
	mustLock(t, newLock(t, s.Client(t), "/underway", "next"))
	if err := acquired.Release(); err != nil {
		t.Fatal(err)
	}
	if r := <-got; r.err == nil && r.held.Err() == nil {
		t.Error("two hold the lock")
	}
}

// TestUnlockedAsItsSessionIsClosed: whoever unlocks at the moment at which the session is closed is
// not told of a loss.
func TestUnlockedAsItsSessionIsClosed(t *testing.T) {
	s := etcdtest.Start(t)
	for range 20 {
		session := newSession(t, s.Client(t))
		locks, _ := lockMany(t, session, 20)
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
	}
	noKeys(t, s.Client(t))
}
