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
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// kindOf names the writes that locks make.
func kindOf(method string, request proto.Message) string {
	switch r := request.(type) {
	case *pb.LeaseGrantRequest:
		return "grant"
	case *pb.LeaseRevokeRequest:
		return "revoke"
	case *pb.TxnRequest:
		switch kind := wire.Kind(r); {
		case strings.HasPrefix(kind, "Claim"):
			return "Claim"
		case strings.HasSuffix(kind, "Read"):
			return "Read"
		default:
			return kind
		}
	}
	return method
}

// once gives the first write of a kind the verdict, and says when it came.
func once(kind string, v etcdtest.Verdict) (hook etcdtest.Hook, hit <-chan struct{}) {
	c := make(chan struct{})
	var done atomic.Bool
	return func(method string, request proto.Message) etcdtest.Verdict {
		if kindOf(method, request) == kind && done.CompareAndSwap(false, true) {
			close(c)
			return v
		}
		return etcdtest.Pass
	}, c
}

// startGated starts an etcd, and a client that is behind a gate, at which the first write of a kind
// gets the verdict.
func startGated(t *testing.T, kind string, v etcdtest.Verdict) (s *etcdtest.Server, gate *etcdtest.Gate, behind *clientv3.Client, hit <-chan struct{}) {
	t.Helper()
	s = etcdtest.Start(t)
	gate = etcdtest.NewGate(t, s.Endpoint())
	hook, hit := once(kind, v)
	gate.Intercept(hook)
	c := s.Config()
	c.Endpoints = []string{gate.Endpoint()}
	return s, gate, etcdtest.Dial(t, c), hit
}

// verdicts are the ways in which the outcome of a write can be unknown.
var verdicts = map[string]etcdtest.Verdict{
	"request held": etcdtest.HoldRequest,
	"answer held":  etcdtest.HoldAnswer,
	"lost":         etcdtest.Drop,
	"failed":       etcdtest.Fail,
	"failed, done": etcdtest.FailApplied,
}

// TestUnknownOutcomes loses the request or the answer of each kind of write, for good or until
// later, while two contenders take turns: never both inside, nothing left, no lock that comes back
// after its release.
func TestUnknownOutcomes(t *testing.T) {
	for _, kind := range []string{"grant", "Acquire", "Claim", "Release", "Pass", "revoke"} {
		for name, verdict := range verdicts {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				s, gate, behind, hit := startGated(t, kind, verdict)
				var inside atomic.Int32
				if kind == "Pass" {
					turns(t, &inside, knowsNext, behind, s.Client(t))
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
				noKeys(t, s.Client(t))

				l := newLock(t, s.Client(t), "/unknown", "after")
				mustLock(t, l)
			})
		}
	}
}

// TestUnknownOutcomeOfGivingUp: the contender is gone for good, whatever becomes of its request to
// be taken off the line.
func TestUnknownOutcomeOfGivingUp(t *testing.T) {
	for name, verdict := range verdicts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, gate, behind, hit := startGated(t, "revoke", verdict)
			ctx := etcdtest.Context(t)

			holder := newLock(t, s.Client(t), "/give-up", "holder")
			mustLock(t, holder)
			waiter := timed(t, behind, "/give-up", "waiter", 2*time.Second)
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
			noKeys(t, s.Client(t))
			if verdict == etcdtest.HoldRequest || verdict == etcdtest.HoldAnswer {
				gate.AwaitHeld(t).Release()
			}
			mustLock(t, newLock(t, s.Client(t), "/give-up", "after"))
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
			s, gate, behind, hit := startGated(t, "LeaveLost", verdict)
			client, ctx := s.Client(t), etcdtest.Context(t)

			l := newLock(t, behind, "/leave", "me")
			// A holder that has noticed before the release is fenced off instead. Then it tries
			// again.
			for left := false; !left; {
				mustLock(t, l)
				if _, err := client.Delete(ctx, "/leave"); err != nil {
					t.Fatal(err)
				}
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
	gate := etcdtest.NewGate(t, s.Endpoint())
	var claims, granted atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		switch kind := kindOf(method, request); {
		case kind == "Claim" && claims.Add(1) == 1,
			kind == "Read" && claims.Load() > 1 && granted.Load() == 0:
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	c := s.Config()
	c.Endpoints = []string{gate.Endpoint()}
	client, ctx := s.Client(t), etcdtest.Context(t)

	holder := newLock(t, client, "/late", "holder")
	mustLock(t, holder)
	leaving, leave := context.WithCancel(ctx)
	defer leave()
	waiting, left := make(chan struct{}), make(chan struct{})
	between := newLock(t, client, "/late", "between")
	between.OnWait = func() { close(waiting) }
	go func() {
		defer close(left)
		between.Lock(leaving)
	}()
	<-waiting
	waiter := timed(t, etcdtest.Dial(t, c), "/late", "waiter", 10*time.Second)
	waiter.OnWait = leave
	locked := make(chan error, 1)
	go func() {
		_, err := waiter.Lock(ctx)
		locked <- err
	}()
	claim := gate.AwaitHeld(t)
	gate.AwaitHeld(t) // the read after the claim that was refused
	<-left
	mustUnlock(t, holder)
	if err := claim.Release(); err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(ctx, "/late")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("the late claim did nothing: %v, %v", resp, err)
	}
	granted.Store(1)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	if token := resp.Kvs[0].ModRevision; waiter.Holding().Token() != token {
		t.Errorf("granted at %d, but the token is %d: it gave the lock back and stood in line again", token, waiter.Holding().Token())
	}
}

// turns lets two contenders take turns until both are done. The second waits behind the first,
// which is made to pass the lock on, or not to.
func turns(t *testing.T, inside *atomic.Int32, before func(testing.TB, *etcdlock.Lock), clients ...*clientv3.Client) {
	ctx := etcdtest.Context(t)
	first := newLock(t, clients[0], "/unknown", "first")
	mustLock(t, first)
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

// noKeys waits until no key is left; one bound to a lease that nobody renews may take that lease's
// time.
func noKeys(t *testing.T, client *clientv3.Client) {
	t.Helper()
	etcdtest.Await(t, "the keys to go", func(ctx context.Context) error {
		resp, err := client.Get(ctx, "", clientv3.WithFromKey())
		if err != nil || len(resp.Kvs) == 0 {
			return err
		}
		var keys []string
		for _, kv := range resp.Kvs {
			keys = append(keys, string(kv.Key))
		}
		return errors.New("left: " + strings.Join(keys, ", "))
	})
}

// holdJoins withholds the next n requests to join.
func holdJoins(gate *etcdtest.Gate, n int32) {
	var held atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if kind := kindOf(method, request); (kind == "Acquire" || kind == "AcquireIfFree") && held.Add(1) <= n {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
}

// TestLateJoin: a request to join that etcd carries out after another one has done so changes
// nothing, be the contender in line, or the holder, or gone.
func TestLateJoin(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	client := s.Client(t)
	inBoth(t, behind, "/late", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newLock(t, client, "/late", "holder")
		mustLock(t, holder)
		holdJoins(gate, 1)
		w := queue(t, l)
		if err := gate.AwaitHeld(t).Release(); err != nil {
			t.Fatal(err)
		}
		waitsStill(t, w)
		mustUnlock(t, holder)
		w.mustGet(t)
		mustUnlock(t, l)

		holdJoins(gate, 1)
		held := mustLock(t, l)
		if err := gate.AwaitHeld(t).Release(); err != nil {
			t.Fatal(err)
		}
		if err := held.Refresh(etcdtest.Context(t)); err != nil || held.Err() != nil || !applied(t, client, held.IsHolder()) {
			t.Errorf("a late request has cost the lock: %v, %v", err, context.Cause(held))
		}
		mustUnlock(t, l)

		holdJoins(gate, 2) // each of which may create the place
		mustLock(t, l)
		late := []*etcdtest.Held{gate.AwaitHeld(t), gate.AwaitHeld(t)}
		mustUnlock(t, l)
		for _, one := range late {
			one.Release()
			next := newLock(t, client, "/late", "next")
			mustLock(t, next)
			mustUnlock(t, next)
		}
		awaitInLine(t, client, "/late", 0)
	})
}

// waitsStill checks that who waits has not got a lock that is held.
func waitsStill(t *testing.T, w *waiter) {
	t.Helper()
	select {
	case err := <-w.got:
		t.Fatalf("it has got a lock that is held: %v", err)
	case <-time.After(300 * time.Millisecond): // nothing tells of what does not happen
	}
}

// TestLateJoinAfterADeletion: a place that an operator has deleted, and a late request creates
// anew, has not been granted the lock.
func TestLateJoinAfterADeletion(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	client := s.Client(t)
	inBoth(t, behind, "/anew", ttl, func(t *testing.T, l *etcdlock.Lock) {
		holder := newLock(t, client, "/anew", "holder")
		mustLock(t, holder)
		holdJoins(gate, 1)
		w := queue(t, l)
		late := gate.AwaitHeld(t)
		gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
			if kindOf(method, request) == "Read" {
				return etcdtest.Drop // the reads that would tell of the deletion are slow
			}
			return etcdtest.Pass
		})
		if _, err := client.Delete(etcdtest.Context(t), placeWith(t, client, "/anew/", l.ID())); err != nil {
			t.Fatal(err)
		}
		late.Release()
		waitsStill(t, w)
		gate.Intercept(nil)
		mustUnlock(t, holder)
		w.mustGet(t)
		mustUnlock(t, l)
	})
}

// TestDeniedAfterALoss: who may not write the tail joins without it, also if the answer to a first
// try was lost.
func TestDeniedAfterALoss(t *testing.T) {
	s := etcdtest.Start(t)
	gate, worker := gatedUser(t, s, "/tail")
	hook, hit := once("Acquire", etcdtest.Drop)
	gate.Intercept(hook)
	l := newLock(t, worker(), "/tail", "me")
	mustLock(t, l)
	<-hit
}

// TestLateJoinOfWhoMayNotReadTheTail: a late request to join is taken back also for a user who
// knows nothing of the tail.
func TestLateJoinOfWhoMayNotReadTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	gate, worker := gatedUser(t, s, "/no-tail")
	_, l := sessionLock(t, worker(), "/no-tail", ttl)
	holder := newLock(t, s.Client(t), "/no-tail", "holder")
	mustLock(t, holder)
	queue(t, l).leave() // by now it joins without the tail
	awaitInLine(t, s.Client(t), "/no-tail", 1)
	holdJoins(gate, 1)
	ctx, leave := context.WithCancel(etcdtest.Context(t))
	defer leave()
	left := make(chan error, 1)
	go func() { _, err := l.Lock(ctx); left <- err }()
	late := gate.AwaitHeld(t)
	var looked atomic.Int32
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if _, ok := answer.(*pb.TxnResponse); ok {
			looked.Add(1)
		}
		return etcdtest.Pass
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	etcdtest.Await(t, "it to be looked for", func(context.Context) error {
		if n := looked.Load(); n < 2 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
	late.Release()
	mustUnlock(t, holder)
	awaitInLine(t, s.Client(t), "/no-tail", 0)
}

// TestTriedWithoutTheTail: what TryLock may have taken for a user who may not touch the tail is
// taken back.
func TestTriedWithoutTheTail(t *testing.T) {
	s := etcdtest.Start(t)
	gate, worker := gatedUser(t, s, "/tried")
	inBoth(t, worker(), "/tried", ttl, func(t *testing.T, l *etcdlock.Lock) {
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
		next := newLock(t, s.Client(t), "/tried", "next")
		mustLock(t, next)
		mustUnlock(t, next)
		awaitInLine(t, s.Client(t), "/tried", 0)
	})
}

// TestTriedTwice: who only tries is told that somebody holds the lock, and who was alone the last
// time stands in line, also if the answer to a first request was lost.
func TestTriedTwice(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	inBoth(t, behind, "/twice", ttl, func(t *testing.T, l *etcdlock.Lock) {
		for name, verdict := range map[string]etcdtest.Verdict{"lost": etcdtest.Drop, "failed": etcdtest.Fail, "refused": etcdtest.TooMany} {
			t.Run(name, func(t *testing.T) {
				mustLock(t, l)
				mustUnlock(t, l) // it was alone
				holder := newLock(t, s.Client(t), l.Key(), "holder")
				mustLock(t, holder)
				for range 2 {
					hook, hit := once("AcquireIfFree", verdict)
					gate.Intercept(hook)
					var busy *etcdlock.BusyError
					if _, err := l.TryLock(etcdtest.Context(t)); !errors.As(err, &busy) {
						t.Errorf("TryLock: %v", err)
					}
					<-hit
				}
				hook, hit := once("AcquireIfFree", verdict)
				gate.Intercept(hook)
				w := queue(t, l)
				<-hit
				awaitInLine(t, s.Client(t), l.Key(), 2)
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
	gate, behind := gated(t, s)
	inBoth(t, behind, "/again", ttl, func(t *testing.T, l *etcdlock.Lock) {
		hook, hit := once("Acquire", etcdtest.TooMany)
		gate.Intercept(hook)
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
	gate, behind := gated(t, s)
	holder := newLock(t, s.Client(t), "/refused-late", "holder")
	mustLock(t, holder)
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
	ctx, leave := context.WithCancel(etcdtest.Context(t))
	left := make(chan error, 1)
	go func() { _, err := l.Lock(ctx); left <- err }()
	late := gate.AwaitHeld(t)
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v", err)
	}
	late.Release()
	awaitInLine(t, s.Client(t), "/refused-late", 1)
}

// TestTwinsOfOneID: two locks of one session, with one key and one id, are two: the key that one of
// them holds is none that the other has left behind, also if an answer to that was lost.
func TestTwinsOfOneID(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	session := newSession(t, behind)
	var twins [2]*etcdlock.Lock
	for i := range twins {
		l, err := session.NewLock("/twins", "me")
		if err != nil {
			t.Fatal(err)
		}
		twins[i] = l
	}
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
	hook, hit := once("Acquire", etcdtest.FailApplied)
	gate.Intercept(hook)
	w := queue(t, twins[1])
	<-hit
	next := queue(t, newLock(t, s.Client(t), "/twins", "next"))
	mustUnlock(t, twins[0])
	w.mustGet(t)
	waitsStill(t, next)
}
