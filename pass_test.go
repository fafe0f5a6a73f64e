package etcdlock_test

import (
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestPassed: a holder that knows who is next hands the lock over with one commit, be it one that
// has waited itself or one that was alone, and nobody claims anything.
func TestPassed(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client := s.Client(t)
	a, b, c := newLock(t, client, "/pass", "a"), newLock(t, client, "/pass", "b"), newLock(t, client, "/pass", "c")
	mustLock(t, a)
	began := revisionOf(t, client)
	wb, wc := queue(t, b), queue(t, c)
	for _, step := range []struct {
		from *etcdlock.Lock
		to   *waiter
	}{{a, wb}, {b, wc}} {
		awaitNextKnown(t, step.from)
		before := revisionOf(t, client)
		mustUnlock(t, step.from)
		step.to.mustGet(t)
		if step.to.Holding().Token() != before+1 {
			t.Errorf("granted at %d, the last revision before was %d", step.to.Holding().Token(), before)
		}
		if now := revisionOf(t, client); now != before+1 {
			t.Errorf("%d commits for one hand-over", now-before)
		}
	}
	mustUnlock(t, c)
	if got := history(t, client, "/pass", began+1); fmt.Sprint(got) != "[b c -]" {
		t.Errorf("the lock went %v", got)
	}
	for _, l := range []*etcdlock.Lock{a, b, c} {
		if err := l.Close(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
	}
	s.Empty(t)
}

// TestTailThatNamesTheHolder: somebody has put the tail again as it was. The holder does not pass
// the lock to itself.
func TestTailThatNamesTheHolder(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	const key = "/names-holder"
	holder := passedOn(t, client, key)
	tail, err := client.Get(ctx, key+"~tail")
	if err != nil {
		t.Fatal(err)
	}
	must(t)(client.Put(ctx, key+"~tail", string(tail.Kvs[0].Value), clientv3.WithIgnoreLease()))
	next := queue(t, newLock(t, client, key, "next"))
	mustUnlock(t, holder.Lock)
	takeTurns(t, next)
}

// TestPassedOnClose: who closes a lock hands it over as well. It was alone when it got it, for long
// enough to be looked after.
func TestPassedOnClose(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	a := newLock(t, client, "/close", "a")
	for range 2 { // the second time it expects nobody
		mustLock(t, a)
		mustUnlock(t, a)
	}
	mustLock(t, a)
	b := queue(t, newLock(t, client, "/close", "b"))
	awaitNextKnown(t, a)
	before := revisionOf(t, client)
	if err := a.Close(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	b.mustGet(t)
	if b.Holding().Token() != before+1 {
		t.Errorf("granted at %d, the last revision before was %d", b.Holding().Token(), before)
	}
}

// TestNotPassed: whenever the successor is not there, or not the one who is next, the lock goes the
// long way, and to who is next.
func TestNotPassed(t *testing.T) {
	tests := map[string]func(t *testing.T, s *etcdtest.Server, holder, next *waiter){
		"not known": func(_ *testing.T, _ *etcdtest.Server, holder, _ *waiter) { holder.ForgetNext() },
		"left": func(t *testing.T, _ *etcdtest.Server, _, next *waiter) {
			next.leave()
			<-next.got
		},
		"lease revoked": func(t *testing.T, s *etcdtest.Server, _, next *waiter) {
			client := s.Client(t)
			if _, err := client.Revoke(etcdtest.Context(t), placeOf(t, client, "/long", "next").lease); err != nil {
				t.Error(err)
			}
			next.leave()
			<-next.got
		},
		"place overwritten": func(t *testing.T, s *etcdtest.Server, _, next *waiter) {
			client := s.Client(t)
			if _, err := client.Put(etcdtest.Context(t), placeOf(t, client, "/long", "next").key, "", clientv3.WithIgnoreLease()); err != nil {
				t.Error(err)
			}
			next.leave()
			<-next.got
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Start(t)
			client := s.Client(t)
			holder := newHolder(t, client, "/long", "holder")
			next := queue(t, newLock(t, client, "/long", "next"))
			last := queue(t, newLock(t, client, "/long", "last"))
			awaitNextKnown(t, holder)
			spoil(t, s, &waiter{Lock: holder}, next)
			mustUnlock(t, holder)
			if name == "not known" {
				takeTurns(t, next)
			}
			takeTurns(t, last)
			awaitKeys(t, client, "", 0)
		})
	}
}

// TestNotPassedOverAStranger: a Mutex that joined between the holder and the next of ours has its
// turn first, and never together with ours.
func TestNotPassedOverAStranger(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := newHolder(t, client, "/stranger", "holder")
	m := newContender(t, s.Client(t), "/stranger", mutex)
	got := inBackground(func() error { _, err := m.lock(ctx); return err })
	awaitKeys(t, client, "/stranger/", 2)
	next := queue(t, newLock(t, client, "/stranger", "next"))
	awaitNextKnown(t, holder)
	mustUnlock(t, holder)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	next.mustNotGet(t, 100*time.Millisecond) // beside the Mutex
	if err := m.unlock(ctx); err != nil {
		t.Fatal(err)
	}
	next.mustGet(t)
}

// TestGivenOn: a waiter that leaves, and to whom the lock was passed before it knew, gives it on to
// the next, and not back to nobody.
func TestGivenOn(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	holder := newHolder(t, client, "/given", "holder")
	leaver := newLock(t, behind, "/given", "leaver")
	leaver.Session().RefreshInterval = 40 * time.Second
	left := queue(t, leaver)
	began := revisionOf(t, client)
	last := queue(t, newLock(t, client, "/given", "last"))
	awaitNextKnown(t, holder)
	awaitNextKnown(t, leaver)
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if _, watched := answer.(*pb.WatchResponse); watched {
			return etcdtest.Drop // it does not hear that its turn has come
		}
		return etcdtest.Pass
	})
	mustUnlock(t, holder)
	left.mustLeave(t)
	last.mustGet(t)
	if got := history(t, client, "/given", began+1); fmt.Sprint(got) != "[leaver last]" {
		t.Errorf("the lock went %v", got)
	}
}

// TestSuccessorBeforeTheWatch: who joins before the watch on the tail of the one before is
// confirmed is known to it all the same.
func TestSuccessorBeforeTheWatch(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	holder := newHolder(t, client, "/late-watch", "holder")
	intercept(gate, every, etcdtest.HoldRequest, "watch")
	second := newLock(t, behind, "/late-watch", "second")
	waits := queue(t, second)
	held := gate.AwaitHeld(t)
	queue(t, newLock(t, client, "/late-watch", "third"))
	queue(t, newLock(t, client, "/late-watch", "fourth"))
	gate.Intercept(nil)
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	mustUnlock(t, holder)
	waits.mustGet(t)
	awaitNextKnown(t, second)
}

// TestSuccessorOfWhoWasAlone: a holder whose place was not watched from the start finds out who
// joined first.
func TestSuccessorOfWhoWasAlone(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	holder := newHolder(t, behind, "/alone", "holder")
	mustUnlock(t, holder)
	intercept(gate, every, etcdtest.HoldRequest, "watch")
	mustLock(t, holder) // expects nobody, so it watches nothing at first
	held := gate.AwaitHeld(t)
	next := queue(t, newLock(t, client, "/alone", "next"))
	gate.Intercept(nil)
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	awaitNextKnown(t, holder)
	before := revisionOf(t, client)
	mustUnlock(t, holder)
	next.mustGet(t)
	if next.Holding().Token() != before+1 {
		t.Errorf("granted at %d, the last revision before was %d", next.Holding().Token(), before)
	}
}
