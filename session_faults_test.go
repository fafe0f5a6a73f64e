package etcdlock_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A listener is a logger that does something when a message comes: that is how a test gets between
// two steps of a lock.
type listener struct {
	message string
	do      func()
}

func (*listener) Enabled(context.Context, slog.Level) bool { return true }
func (l *listener) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *listener) WithGroup(string) slog.Handler          { return l }
func (l *listener) Handle(_ context.Context, r slog.Record) error {
	if r.Message == l.message {
		l.do()
	}
	return nil
}

// sessionLock returns a session, ready, and a lock of it.
func sessionLock(t testing.TB, client *clientv3.Client, key string, ttl time.Duration) (*etcdlock.Session, *etcdlock.Lock) {
	t.Helper()
	session := newSession(t, client)
	session.TTL = ttl
	if err := session.Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	l, err := session.NewLock(key, "me")
	if err != nil {
		t.Fatal(err)
	}
	return session, l
}

// TestSessionClosedAsALockIsGranted: a lock that has been won already is not handed out as if it
// were held.
func TestSessionClosedAsALockIsGranted(t *testing.T) {
	s := etcdtest.Start(t)
	session, l := sessionLock(t, s.Client(t), "/granted", ttl)
	l.Logger = slog.New(&listener{"lock acquired", func() {
		if err := session.Close(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
	}})
	if held, err := gripOf(l.Lock(etcdtest.Context(t))); !errors.Is(err, etcdlock.ErrClosed) && held.Err() == nil {
		t.Errorf("Lock: %v, and its context goes on", err)
	}
	mustLock(t, newLock(t, s.Client(t), "/granted", "next"))
}

// TestPausedAsALockIsGranted: a pause between the look at the clock and the grant, after which etcd
// cannot be reached, does not cost the keeper's attention.
func TestPausedAsALockIsGranted(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := linked(t, s)
	_, l := sessionLock(t, behind, "/paused", 2*time.Second)
	l.Logger = slog.New(&listener{"lock acquired", func() {
		link.Silence()
		time.Sleep(2 * time.Second) // the pause
	}})
	held, err := gripOf(l.Lock(etcdtest.Context(t)))
	link.Restore()
	if err != nil {
		return
	}
	expired := l.Holding().Expired()
	mustLock(t, newLock(t, s.Client(t), "/paused", "next"))
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
	link, behind := linked(t, s)
	_, l := sessionLock(t, behind, "/vain", ttl)
	mustLock(t, l)
	link.Silence()
	if err := l.Unlock(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("Unlock: %v", err)
	}
	link.Restore()
	mustLock(t, newLock(t, s.Client(t), "/vain", "next"))
}

// TestClearedUpLate: what removes a lost lock of a session, and comes late, does not hit the next
// holding of the same Lock.
func TestClearedUpLate(t *testing.T) {
	t.Parallel()
	s, gate, behind, hit := startGated(t, "Release", etcdtest.HoldRequest)
	client, ctx := s.Client(t), etcdtest.Context(t)
	_, l := sessionLock(t, behind, "/late-clearing", ttl)
	held := mustLock(t, l)
	if _, err := client.Delete(ctx, "/late-clearing", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if lost := causeOf(t, held); !lost.Reason.Forced() {
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
	s, _, behind, hit := startGated(t, "Acquire", etcdtest.FailApplied)
	client, ctx := s.Client(t), etcdtest.Context(t)
	_, l := sessionLock(t, behind, "/unknown", ttl)
	holder := newLock(t, client, "/unknown", "holder")
	mustLock(t, holder)
	waiting, leave := context.WithCancel(ctx)
	go func() {
		<-hit
		leave()
	}()
	if _, err := l.Lock(waiting); err == nil {
		t.Error("two hold the lock")
	}
	mustUnlock(t, holder)
	noKeys(t, client)
}

// TestRefusedForAWhile: a session that etcd refuses for a time tries to take one place again and
// again, and not one after another, each of which it would have to clear up.
func TestRefusedForAWhile(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
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
	noKeys(t, s.Client(t))
}

// TestForbiddenKeyInASession: a lock that may not be touched does not cost the others of its
// session their lease.
func TestForbiddenKeyInASession(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	s.EnableAuth(t, "secret")
	s.AddUser(t, "narrow", "Pass", "/allowed")
	config := s.Config()
	config.Username, config.Password = "narrow", "Pass"
	// Each request checks a password.
	session, forbidden := sessionLock(t, etcdtest.Dial(t, config), "/forbidden", 8*time.Second)
	if _, err := forbidden.Lock(etcdtest.Context(t)); err == nil {
		t.Error("a lock that may not be touched was acquired")
	}
	allowed, err := session.NewLock("/allowed", "me")
	if err != nil {
		t.Fatal(err)
	}
	held := mustLock(t, allowed)
	renewed(t, allowed, held, 3)
}

// TestPredecessorsLeaseIsGone: who leaves the line behind a place that an operator has taken off
// its lease, which has ended, keeps the lease of its own session.
func TestPredecessorsLeaseIsGone(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session, l := sessionLock(t, client, "/gone", ttl)
	other, err := session.NewLock("/other", "me")
	if err != nil {
		t.Fatal(err)
	}
	held := mustLock(t, other)
	mustLock(t, newLock(t, client, "/gone", "holder"))
	link, behind := linked(t, s)
	queue(t, newLock(t, behind, "/gone", "predecessor"))
	w := queue(t, l)
	link.Silence() // it would take its place away
	place, lease := placeWith(t, client, "/gone/", "predecessor"), leaseOf(t, client, "/gone/", "predecessor")
	if _, err := client.Put(ctx, place, "by hand"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	w.leave()
	if err := <-w.got; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	awaitInLine(t, client, "/gone", 2)
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
		holder := newLock(t, client, "/idle", "holder")
		mustLock(t, holder)
		leaver, next := queue(t, newLock(t, client, "/idle", "leaver")), queue(t, newLock(t, client, "/idle", "next"))
		knowsNext(t, holder)
		leaver.leave()
		if err := <-leaver.got; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
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
	other, err := session.NewLock("/other", "me")
	if err != nil {
		t.Fatal(err)
	}
	sign := mustLock(t, other) // of what the session knows of its lease
	var once sync.Once
	l.Logger = slog.New(&listener{"lock acquired", func() {
		once.Do(func() {
			if _, err := client.Revoke(etcdtest.Context(t), sign.Lease()); err != nil {
				t.Error(err)
			}
			<-sign.Done()
			awaitNoWatch(t, l) // l has heard of it as well
		})
	}})
	held := mustLock(t, l)
	if held.Err() != nil || !applied(t, client, held.IsHolder()) {
		t.Errorf("what Lock returned is lost: %v", context.Cause(held))
	}
}

// TestManyUnknownPlaces: a session is not kept busy by places that may never be created.
func TestManyUnknownPlaces(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	session, l := sessionLock(t, behind, "/unknowns", 10*time.Second)
	session.RefreshInterval = 100 * time.Millisecond
	joins := make(chan context.CancelFunc, 1)
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && writes(txn) {
			select {
			case cancel := <-joins:
				cancel()
			default:
			}
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	for range 20 {
		ctx, cancel := context.WithCancel(etcdtest.Context(t))
		joins <- cancel
		if _, err := l.Lock(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	gate.Intercept(nil)
	client := s.Client(t)
	etcdtest.Await(t, "the session to give its lease up", func(ctx context.Context) error {
		leases, err := client.Leases(ctx)
		if err == nil && len(leases.Leases) > 0 {
			err = errors.New("it is there")
		}
		return err
	})
	held := mustLock(t, l)
	renewed(t, l, held, 2)
}

// TestOverwrittenAndNotRevoked: a place that an operator has taken off its lease is removed when
// etcd answers, also if Close was told nothing, and the lease runs out meanwhile.
func TestOverwrittenAndNotRevoked(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for name, lost := range map[string][]string{
		"revocation": {"revoke"}, "comparison and revocation": {"Read", "revoke"},
	} {
		t.Run(name, func(t *testing.T) {
			gate, behind := gated(t, s)
			l := timed(t, behind, "/off", "me", 2*time.Second)
			mustLock(t, l)
			if _, err := client.Put(ctx, placeWith(t, client, "/off/", "me"), "by hand"); err != nil {
				t.Fatal(err)
			}
			gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
				if slices.Contains(lost, kindOf(method, request)) {
					return etcdtest.Drop
				}
				return etcdtest.Pass
			})
			if err := l.Close(ctx); !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Errorf("Close: %v", err)
			}
			gate.Intercept(nil)
			awaitInLine(t, client, "/off", 0) // who has a Mutex would wait behind it
		})
	}
}
