package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// locksIn returns n locks of a session.
func locksIn(t testing.TB, session *etcdlock.Session, prefix string, n int) (all []*etcdlock.Lock) {
	t.Helper()
	for i := range n {
		all = append(all, lockIn(t, session, fmt.Sprint(prefix, i), "me"))
	}
	return all
}

// atOnce calls something for all locks at once, and returns what each call came to.
func atOnce(all []*etcdlock.Lock, do func(l *etcdlock.Lock) error) []error {
	errs := make([]error, len(all))
	var calls sync.WaitGroup
	for i, l := range all {
		calls.Go(func() { errs[i] = do(l) })
	}
	calls.Wait()
	return errs
}

func lockAll(t testing.TB, all []*etcdlock.Lock) error {
	return errors.Join(atOnce(all, func(l *etcdlock.Lock) error { _, err := l.Lock(etcdtest.Context(t)); return err })...)
}

func unlockAll(t testing.TB, all []*etcdlock.Lock) error {
	return errors.Join(atOnce(all, func(l *etcdlock.Lock) error { return l.Unlock(etcdtest.Context(t)) })...)
}

// isBatch reports whether a request is one of several locks, all of which put something, or delete.
func isBatch(request proto.Message, puts bool) bool {
	if kindOf("", request) != "Batch" {
		return false
	}
	for _, op := range request.(*pb.TxnRequest).Success {
		one := op.GetRequestTxn()
		if len(one.Success) == 0 || (one.Success[0].GetRequestPut() != nil) != puts {
			return false
		}
	}
	return true
}

// TestManyAtOnce: what many locks of a session ask for at once goes to etcd in a few requests. Each
// gets what it asked for, and nothing is left.
func TestManyAtOnce(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	var single, together atomic.Int64
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		switch kind := kindOf(method, request); {
		case kind == "Batch":
			together.Add(int64(len(request.(*pb.TxnRequest).Success)))
		case kind == "AcquireIfFree", kind == "Acquire", kind == "Release":
			single.Add(1)
		}
		return etcdtest.Pass
	})
	const n, rounds = 64, 10
	session := newSession(t, behind)
	all := locksIn(t, session, "/many/", n)
	for range rounds {
		if err := lockAll(t, all); err != nil {
			t.Fatal(err)
		}
		if keys := etcdtest.Keys(t, s.Client(t), "/many/"); len(keys) != 2*n {
			t.Errorf("%d keys of %d locks that are held", len(keys), n)
		}
		if err := unlockAll(t, all); err != nil {
			t.Fatal(err)
		}
	}
	awaitKeys(t, s.Client(t), "/many/", 0)
	t.Logf("%d requests of one lock, %d in batches", single.Load(), together.Load())
	if single.Load()+together.Load() < 2*n*rounds || together.Load() < n*rounds {
		t.Errorf("of %d requests %d were sent together", 2*n*rounds, together.Load())
	}
}

// TestOneLockAtOnce: contenders of one session for one lock get it in turn, however many join at
// once.
func TestOneLockAtOnce(t *testing.T) {
	s := etcdtest.Start(t)
	session := newSession(t, s.Client(t))
	var all []*etcdlock.Lock
	for i := range 60 { // each of three keys is wanted by twenty
		all = append(all, lockIn(t, session, fmt.Sprint("/one/", i%3), "me"))
	}
	holders := make([]atomic.Int64, 3)
	var tokens [3]atomic.Int64
	errs := atOnce(all, func(l *etcdlock.Lock) error {
		for range 5 {
			held, err := l.Lock(etcdtest.Context(t))
			if err != nil {
				return err
			}
			i := l.Key()[len(l.Key())-1] - '0'
			if n := holders[i].Add(1); n > 1 {
				return fmt.Errorf("%d hold %s", n, l.Key())
			}
			if was := tokens[i].Swap(held.Token()); was >= held.Token() {
				return fmt.Errorf("the token %d of %s comes after %d", held.Token(), l.Key(), was)
			}
			holders[i].Add(-1)
			if err := held.Unlock(etcdtest.Context(t)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	awaitKeys(t, s.Client(t), "/one/", 0)
}

// TestManyUnknown: whatever becomes of a request for several locks, all of them are held, and then
// nothing is left.
func TestManyUnknown(t *testing.T) {
	forVerdicts(t, []string{"locking", "unlocking"}, func(t *testing.T, s *etcdtest.Server, phase string, verdict etcdtest.Verdict) {
		gate, behind := s.Gated(t)
		session := newSession(t, behind)
		all := locksIn(t, session, "/unknown/", 24)
		var hit atomic.Bool
		gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
			if !hit.Load() && isBatch(request, phase == "locking") {
				hit.Store(true)
				return verdict
			}
			return etcdtest.Pass
		})
		for !hit.Load() { // on a slow machine they may come one after the other
			if err := lockAll(t, all); err != nil {
				t.Fatal(err)
			}
			if err := unlockAll(t, all); err != nil {
				t.Fatal(err)
			}
		}
		awaitKeys(t, s.Client(t), "/unknown/", 0)
	})
}

// TestManyAppliedLate: a request for several locks that everybody has given up, and that is applied
// much later, leaves nothing at which nobody stands.
func TestManyAppliedLate(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session := newSession(t, behind)
	all := locksIn(t, session, "/late/", 24)
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	var held atomic.Bool
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if held.Load() || isBatch(request, true) {
			held.Store(true)
			return etcdtest.HoldRequest // also what follows: nobody gets an answer
		}
		return etcdtest.Pass
	})
	for !held.Load() {
		got := inBackground(func() error {
			return errors.Join(atOnce(all, func(l *etcdlock.Lock) error { _, err := l.Lock(ctx); return err })...)
		})
		await(t, "a request for several locks", func() (bool, any) { return held.Load() || len(got) > 0, nil })
		if held.Load() {
			cancel()
			<-got
			break
		}
		if err := unlockAll(t, all); err != nil {
			t.Fatal(err)
		}
	}
	late := gate.AwaitHeld(t)
	gate.Intercept(nil)
	if err := late.Release(); err != nil {
		t.Fatal(err)
	}
	// Of those that got it before.
	atOnce(all, func(l *etcdlock.Lock) error { return l.Unlock(etcdtest.Context(t)) })
	awaitKeys(t, s.Client(t), "/late/", 0)
	if err := lockAll(t, all); err != nil {
		t.Error(err)
	}
}

// TestManyWithoutPermission: that one lock may not be written costs the others nothing.
func TestManyWithoutPermission(t *testing.T) {
	s := etcdtest.Start(t)
	var may []string
	for i := range 24 {
		if i != 7 {
			may = append(may, fmt.Sprint("/may/", i))
		}
	}
	config := s.AddUser(t, "worker", "secret", may...)
	s.EnableAuth(t, "rootsecret")
	session := newSession(t, etcdtest.Dial(t, config))
	all := locksIn(t, session, "/may/", 24)
	for range 3 {
		for i, err := range atOnce(all, func(l *etcdlock.Lock) error { _, err := l.Lock(etcdtest.Context(t)); return err }) {
			if denied := err != nil && strings.Contains(err.Error(), "permission denied"); denied != (i == 7) {
				t.Errorf("%d: %v", i, err)
			}
		}
		for i, err := range atOnce(all, func(l *etcdlock.Lock) error { return l.Unlock(etcdtest.Context(t)) }) {
			if (err != nil) != (i == 7) {
				t.Errorf("%d is unlocked: %v", i, err)
			}
		}
	}
}

// TestManyWithoutSpace: while etcd has no space all that are held are given back, and who asks is
// told. When it has, all are free.
func TestManyWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t)
	session := newSession(t, s.Client(t))
	held, wanted := locksIn(t, session, "/space/held/", 24), locksIn(t, session, "/space/wanted/", 24)
	for range 3 {
		if err := lockAll(t, held); err != nil {
			t.Fatal(err)
		}
		s.Alarm(t, true)
		given := inBackground(func() error { return unlockAll(t, held) })
		for i, err := range atOnce(wanted, func(l *etcdlock.Lock) error { _, err := l.TryLock(etcdtest.Context(t)); return err }) {
			if !errors.Is(err, rpctypes.ErrNoSpace) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if err := <-given; err != nil {
			t.Errorf("unlocked: %v", err)
		}
		s.Alarm(t, false)
		awaitKeys(t, s.Client(t), "/space/", 0)
	}
}

// TestManyOfFewOperations: where etcd takes few operations in a transaction there are several
// smaller ones.
func TestManyOfFewOperations(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(16))
	session := newSession(t, s.Client(t))
	all := locksIn(t, session, "/few/", 64)
	for range 5 {
		if err := errors.Join(lockAll(t, all), unlockAll(t, all)); err != nil {
			t.Fatal(err)
		}
	}
	awaitKeys(t, s.Client(t), "/few/", 0)
}

// TestManyPassedOn: what many holders pass on at once, each successor gets; that one has gone
// meanwhile does not cost the others theirs.
func TestManyPassedOn(t *testing.T) {
	s := etcdtest.Start(t)
	holders, next := newSession(t, s.Client(t)), newSession(t, s.Client(t))
	all := locksIn(t, holders, "/pass/", 24)
	if err := lockAll(t, all); err != nil {
		t.Fatal(err)
	}
	lost := newLock(t, s.Client(t), "/pass/0", "lost")
	gone := queue(t, lost)
	var behind []*waiter
	for _, l := range all {
		behind = append(behind, queue(t, lockIn(t, next, l.Key(), "next")))
		awaitNextKnown(t, l)
	}
	lease := placeOf(t, s.Client(t), "/pass/0", "lost").lease
	must(t)(s.Client(t).Revoke(etcdtest.Context(t), lease))
	if err := unlockAll(t, all); err != nil {
		t.Error(err)
	}
	for _, w := range behind {
		w.mustGet(t)
		mustUnlock(t, w.Lock)
	}
	gone.mustGet(t) // with another lease
	mustUnlock(t, lost)
	awaitKeys(t, s.Client(t), "/pass/", 0)
}
