package etcdlock_test

import (
	"context"
	"errors"
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

// TestUnknownOutcomes loses the request or the answer of each kind of write, for good or until
// later, while two contenders take turns: never both inside, nothing left, no lock that comes back
// after its release.
func TestUnknownOutcomes(t *testing.T) {
	t.Parallel()
	forVerdicts(t, []string{"grant", "Acquire", "Claim", "Release", "Pass", "revoke"}, func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict) {
		gate, behind := s.Gated(t)
		hit := intercept(gate, 1, verdict, kind)
		var inside atomic.Int32
		if kind == "Pass" {
			turns(t, &inside, awaitNextKnown, behind, s.Client(t))
		} else {
			forgets := func(_ testing.TB, l *etcdlock.Lock) { l.ForgetNext() }
			turns(t, &inside, forgets, s.Client(t), behind)
		}
		select {
		case <-hit:
		default:
			t.Errorf("no %s was made", kind)
		}
		if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
			gate.AwaitHeld(t).Release() // comes late, and must do no harm
		}
		awaitKeys(t, s.Client(t), "", 0)

		newHolder(t, s.Client(t), "/unknown", "after")
	})
}

// TestUnknownOutcomeOfGivingUp: the contender is gone for good, whatever becomes of its request to
// be taken off the line.
func TestUnknownOutcomeOfGivingUp(t *testing.T) {
	t.Parallel()
	for name, verdict := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, ctx := etcdtest.Start(t), etcdtest.Context(t)
			gate, behind := s.Gated(t)
			hit := intercept(gate, 1, verdict, "revoke")

			holder := newHolder(t, s.Client(t), "/give-up", "holder")
			waiter := newLock(t, behind, "/give-up", "waiter")
			waiter.Session().TTL = 2 * time.Second
			waiting, cancel := context.WithCancel(ctx)
			defer cancel()
			waiter.OnWait = cancel
			if _, err := waiter.Lock(waiting); !errors.Is(err, context.Canceled) {
				t.Errorf("Lock: %v", err)
			}
			<-hit
			if err := holder.Close(ctx); err != nil {
				t.Error(err)
			}
			awaitKeys(t, s.Client(t), "", 0)
			if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
				gate.AwaitHeld(t).Release()
			}
			newHolder(t, s.Client(t), "/give-up", "after")
		})
	}
}

// TestUnknownOutcomeOfLeaving: the lock's key was deleted from outside, so the release is refused
// and the place in line deleted by itself. Used again, the place must not be hit by what was on its
// way.
func TestUnknownOutcomeOfLeaving(t *testing.T) {
	for name, verdict := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Start(t)
			gate, behind := s.Gated(t)
			hit := intercept(gate, 1, verdict, "LeaveLost")
			client, ctx := s.Client(t), etcdtest.Context(t)

			l := newLock(t, behind, "/leave", "me")
			// A holder that has noticed before the release is fenced off instead. Then it tries
			// again.
			for left := false; !left; {
				mustLock(t, l)
				must(t)(client.Delete(ctx, "/leave"))
				if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Errorf("Unlock: %v", err)
				}
				select {
				case <-hit:
					left = true
				case <-ctx.Done():
					t.Fatal("the holder has always noticed before the release")
				default:
				}
			}
			held := mustLock(t, l)
			if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
				gate.AwaitHeld(t).Release()
			}
			if again := mustLock(t, l); again.Err() != nil || held.Err() != nil {
				t.Errorf("lost: %v", context.Cause(held))
			}
			mustUnlock(t, l)
		})
	}
}

// TestClaimThatComesLate: a claim without an answer is repeated, refused because it is not our turn
// yet, and the first one is applied after all, when it is. The contender has the lock then, and
// must not go to the end of the line.
func TestClaimThatComesLate(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	var claims, granted atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		switch kind := kindOf(method, request); {
		case kind == "Claim" && claims.Add(1) == 1,
			kind == "Read" && claims.Load() > 1 && granted.Load() == 0:
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	client, ctx := s.Client(t), etcdtest.Context(t)

	holder := newHolder(t, client, "/late", "holder")
	between := queue(t, newLock(t, client, "/late", "between"))
	waiter := newLock(t, behind, "/late", "waiter")
	waiter.Session().TTL = 10 * time.Second
	waiter.OnWait = between.leave
	w := startLock(t, waiter)
	claim := gate.AwaitHeld(t)
	gate.AwaitHeld(t) // the read after the claim that was refused
	<-between.got
	mustUnlock(t, holder)
	if err := claim.Release(); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(ctx, "/late")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("the late claim did nothing: %v, %v", resp, err)
	}
	granted.Store(1)
	w.mustGet(t)
	if token := resp.Kvs[0].ModRevision; waiter.Holding().Token() != token {
		t.Errorf("granted at %d, but the token is %d: it gave the lock back and stood in line again", token, waiter.Holding().Token())
	}
}

// turns lets two contenders take turns until both are done. The second waits behind the first,
// which is made to pass the lock on, or not to.
func turns(t *testing.T, inside *atomic.Int32, before func(testing.TB, *etcdlock.Lock), clients ...*clientv3.Client) {
	ctx := etcdtest.Context(t)
	first := newHolder(t, clients[0], "/unknown", "first")
	waiting := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		l, err := etcdlock.New(clients[1], "/unknown", "second", 2*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		l.OnWait = sync.OnceFunc(func() { close(waiting) })
		for range 3 {
			if _, err := l.Lock(ctx); err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two inside")
			}
			inside.Add(-1)
			if err := l.Unlock(ctx); err != nil && !errors.Is(err, etcdlock.ErrUnconfirmed) {
				t.Error(err)
			}
		}
		if _, err := l.Lock(ctx); err != nil {
			t.Error(err)
		}
		if err := l.Close(ctx); err != nil && !errors.Is(err, etcdlock.ErrUnconfirmed) {
			t.Error(err)
		}
	})
	select {
	case <-waiting:
	case <-ctx.Done():
		t.Error("the second never waited")
	}
	inside.Add(1)
	inside.Add(-1)
	before(t, first)
	mustUnlock(t, first)
	wg.Wait()
	if err := first.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestLateJoin: a request to join that etcd carries out after another one has done so changes
// nothing, be the contender in line, or the holder, or gone.
func TestLateJoin(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	inBoth(t, behind, "/late", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newHolder(t, client, "/late", "holder")
		intercept(gate, 1, etcdtest.HoldRequest, joins...)
		w := queue(t, l)
		if err := gate.AwaitHeld(t).Release(); err != nil {
			t.Fatal(err)
		}
		w.mustNotGet(t, 300*time.Millisecond)
		mustUnlock(t, holder)
		w.mustGet(t)
		mustUnlock(t, l)

		intercept(gate, 1, etcdtest.HoldRequest, joins...)
		held := mustLock(t, l)
		if err := gate.AwaitHeld(t).Release(); err != nil {
			t.Fatal(err)
		}
		if err := held.Refresh(etcdtest.Context(t)); err != nil || held.Err() != nil || !applied(t, client, held.IsHolder()) {
			t.Errorf("a late request has cost the lock: %v, %v", err, context.Cause(held))
		}
		mustUnlock(t, l)

		intercept(gate, 2, etcdtest.HoldRequest, joins...) // each of which may create the place
		mustLock(t, l)
		late := []*etcdtest.Held{gate.AwaitHeld(t), gate.AwaitHeld(t)}
		mustUnlock(t, l)
		for _, one := range late {
			one.Release()
			mustUnlock(t, newHolder(t, client, "/late", "next"))
		}
		awaitKeys(t, client, "/late/", 0)
	})
}

// TestLateJoinAfterADeletion: a place that an operator has deleted, and a late request creates
// anew, has not been granted the lock.
func TestLateJoinAfterADeletion(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	inBoth(t, behind, "/anew", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newHolder(t, client, "/anew", "holder")
		intercept(gate, 1, etcdtest.HoldRequest, joins...)
		w := queue(t, l)
		late := gate.AwaitHeld(t)
		intercept(gate, every, etcdtest.Drop, "Read") // those that would tell of the deletion
		must(t)(client.Delete(etcdtest.Context(t), placeOf(t, client, "/anew", l.ID()).key))
		late.Release()
		w.mustNotGet(t, 300*time.Millisecond)
		gate.Intercept(nil)
		mustUnlock(t, holder)
		w.mustGet(t)
		mustUnlock(t, l)
	})
}

// TestDeniedAfterALoss: who may not write the tail joins without it, also if the answer to a first
// try was lost. There was no place, and nobody is told of the loss of one.
func TestDeniedAfterALoss(t *testing.T) {
	s := etcdtest.Start(t)
	worker, gate := newWorker(t, s, "/tail"), etcdtest.NewGate(t, s.Endpoint())
	hit := intercept(gate, 1, etcdtest.Drop, "Acquire")
	l := newLock(t, gate.Dial(t, worker), "/tail", "me")
	l.Logger = onMessage("place in line lost, taking another", func() { t.Error("it has lost a place that it never had") })
	mustLock(t, l)
	<-hit
	mustUnlock(t, l)
}

// TestLateJoinOfWhoMayNotReadTheTail: a late request to join is taken back also for a user who
// knows nothing of the tail.
func TestLateJoinOfWhoMayNotReadTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	worker, gate := newWorker(t, s, "/no-tail"), etcdtest.NewGate(t, s.Endpoint())
	_, l := sessionLock(t, gate.Dial(t, worker), "/no-tail", ttl)
	holder := newHolder(t, s.Client(t), "/no-tail", "holder")
	queue(t, l).leave() // by now it joins without the tail
	awaitKeys(t, s.Client(t), "/no-tail/", 1)
	intercept(gate, 1, etcdtest.HoldRequest, joins...)
	w := startLock(t, l)
	late := gate.AwaitHeld(t)
	var looked atomic.Int32
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if _, ok := answer.(*pb.TxnResponse); ok {
			looked.Add(1)
		}
		return etcdtest.Pass
	})
	w.mustLeave(t)
	await(t, "it to be looked for", func() (bool, any) { n := looked.Load(); return n >= 2, n })
	late.Release()
	mustUnlock(t, holder)
	awaitKeys(t, s.Client(t), "/no-tail/", 0)
}

// TestTriedWithoutTheTail: what TryLock may have taken for a user who may not touch the tail is
// taken back.
func TestTriedWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	worker, gate := newWorker(t, s, "/tried"), etcdtest.NewGate(t, s.Endpoint())
	inBoth(t, gate.Dial(t, worker), "/tried", ttl, func(t *testing.T, l *etcdlock.Lock) {
		ctx, leave := context.WithCancel(etcdtest.Context(t))
		defer leave()
		gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
			if kindOf(method, request) == "AcquireIfFree" {
				leave()
				return etcdtest.FailApplied
			}
			return etcdtest.Pass
		})
		if _, err := l.TryLock(ctx); err == nil {
			t.Error("it has the lock")
		}
		gate.Intercept(nil)
		mustUnlock(t, newHolder(t, s.Client(t), "/tried", "next"))
		awaitKeys(t, s.Client(t), "/tried/", 0)
	})
}

// TestTriedTwice: who only tries is told that somebody holds the lock, and who was alone the last
// time stands in line, also if the answer to a first request was lost.
func TestTriedTwice(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/twice", ttl, func(t *testing.T, l *etcdlock.Lock) {
		for name, verdict := range map[string]etcdtest.Verdict{"lost": etcdtest.Drop, "failed": etcdtest.Fail, "refused": etcdtest.TooMany} {
			t.Run(name, func(t *testing.T) {
				mustLock(t, l)
				mustUnlock(t, l) // it was alone
				holder := newHolder(t, s.Client(t), l.Key(), "holder")
				for range 2 {
					hit := intercept(gate, 1, verdict, "AcquireIfFree")
					var busy *etcdlock.BusyError
					if _, err := l.TryLock(etcdtest.Context(t)); !errors.As(err, &busy) {
						t.Errorf("TryLock: %v", err)
					}
					<-hit
				}
				hit := intercept(gate, 1, verdict, "AcquireIfFree")
				w := queue(t, l)
				<-hit
				awaitKeys(t, s.Client(t), l.Key()+"/", 2)
				mustUnlock(t, holder)
				w.mustGet(t)
				mustUnlock(t, l)
			})
		}
	})
}

// TestRefusedAtFirst: a request that etcd did not carry out, and said so, is not one that may still
// come. Nobody looks for what it might create.
func TestRefusedAtFirst(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/again", ttl, func(t *testing.T, l *etcdlock.Lock) {
		hit := intercept(gate, 1, etcdtest.TooMany, "Acquire")
		mustLock(t, l)
		<-hit
		mustUnlock(t, l)
		awaitNoWatch(t, l)
	})
}

// TestRefusedThenLate: one request to join was refused, and the next one comes when nobody waits
// for it any more. What it creates is taken back.
func TestRefusedThenLate(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	newHolder(t, s.Client(t), "/refused-late", "holder")
	_, l := sessionLock(t, behind, "/refused-late", ttl)
	var tries atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		switch {
		case kindOf(method, request) != "Acquire":
			return etcdtest.Pass
		case tries.Add(1) == 1:
			return etcdtest.TooMany
		}
		return etcdtest.HoldRequest
	})
	w := startLock(t, l)
	late := gate.AwaitHeld(t)
	w.mustLeave(t)
	late.Release()
	awaitKeys(t, s.Client(t), "/refused-late/", 1)
}

// TestTwinsOfOneID: two locks of one session, with one key and one id, are two: the key that one of
// them holds was not left behind by the other, also if an answer to that was lost.
func TestTwinsOfOneID(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	twins := [2]*etcdlock.Lock{lockIn(t, session, "/twins", "me"), lockIn(t, session, "/twins", "me")}
	mustLock(t, twins[0])
	var tries atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if kindOf(method, request) == "AcquireIfFree" && tries.Add(1)%2 == 1 {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	var busy *etcdlock.BusyError
	if _, err := twins[1].TryLock(etcdtest.Context(t)); !errors.As(err, &busy) {
		t.Errorf("TryLock: %v", err)
	}
	hit := intercept(gate, 1, etcdtest.FailApplied, "Acquire")
	w := queue(t, twins[1])
	<-hit
	next := queue(t, newLock(t, s.Client(t), "/twins", "next"))
	mustUnlock(t, twins[0])
	w.mustGet(t)
	next.mustNotGet(t, 300*time.Millisecond)
}
