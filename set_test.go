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

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestSet: what is free is taken in one transaction, in which etcd creates a key and a place for
// each lock, and given back in one.
func TestSet(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	session := newSession(t, client)
	if err := session.Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	set := setIn(t, session, "me", "/b", "/a/c", "/a", "/d")
	if want := []string{"/a", "/a/c", "/b", "/d"}; !slices.Equal(set.Keys(), want) {
		t.Errorf("keys %q, want %q", set.Keys(), want)
	}
	before := revisionOf(t, client)
	for range 3 {
		held := mustLockSet(t, set)
		if after := revisionOf(t, client); after != before+1 {
			t.Errorf("%d revisions to take four locks", after-before)
		}
		for _, key := range set.Keys() {
			if held.Token(key) != before+1 {
				t.Errorf("token of %q is %d, want %d", key, held.Token(key), before+1)
			}
		}
		if held.Token("/c") != 0 {
			t.Error("it has a token for another key")
		}
		ctx := held.Context(context.Background())
		if ctx.Err() != nil || held.Remaining() <= 0 || !applied(t, client, held.IsHolder()[3]) {
			t.Errorf("it does not hold what it holds: %v, %v", context.Cause(ctx), held.Remaining())
		}
		if lease := placeOf(t, client, "/d", "me").lease; held.Lease() != lease {
			t.Errorf("its lease is %x, and that of a place %x", held.Lease(), lease)
		}
		if again, err := set.Lock(etcdtest.Context(t)); err != nil || again.Token("/b") != held.Token("/b") {
			t.Errorf("locked again: %v", err)
		}
		before = revisionOf(t, client)
		if err := held.Unlock(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
		if after := revisionOf(t, client); after != before+1 {
			t.Errorf("%d revisions to give four locks back", after-before)
		}
		<-held.Expired()
		if ctx.Err() == nil || held.Remaining() > 0 || held.Lease() != 0 || applied(t, client, held.IsHolder()[0]) {
			t.Error("it holds what it has given back")
		}
		if err := held.Unlock(etcdtest.Context(t)); err != etcdlock.ErrNotHeld {
			t.Errorf("unlocked twice: %v", err)
		}
		before = revisionOf(t, client)
	}
	awaitKeys(t, client, "/a/", 0)
}

// TestSharedSet: sets that share their locks take them in one transaction each, hold them together,
// and give them back in one. Whoever tries takes none while somebody has one of them alone.
func TestSharedSet(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	var held []*etcdlock.HeldSet
	share := func() *etcdlock.Set {
		session := newSession(t, client)
		if err := session.Prepare(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		set := setIn(t, session, "me", "/b", "/a", "/c")
		set.Mode = etcdlock.Shared
		return set
	}
	for _, set := range []*etcdlock.Set{share(), share()} {
		before := revisionOf(t, client)
		held = append(held, mustLockSet(t, set))
		if after := revisionOf(t, client); after != before+1 {
			t.Errorf("%d revisions to share three locks", after-before)
		}
	}
	writer := newLock(t, client, "/b", "a writer")
	if _, err := writer.TryLock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("a lock that sets share is free: %v", err)
	}
	for _, one := range held {
		before := revisionOf(t, client)
		if err := one.Unlock(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
		if after := revisionOf(t, client); after != before+1 {
			t.Errorf("%d revisions to give three locks back", after-before)
		}
	}
	mustLock(t, writer)
	late := share()
	before := revisionOf(t, client)
	_, err := late.TryLock(etcdtest.Context(t))
	var busy *etcdlock.BusyError
	if after := revisionOf(t, client); !errors.As(err, &busy) || busy.Key != "/b" || after != before {
		t.Errorf("tried, with %d revisions: %v", after-before, err)
	}
	mustUnlock(t, writer)
	if _, err := late.TryLock(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
}

// TestSetTries: a set that only tries takes all locks or none, and says who has the first that is
// not free.
func TestSetTries(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	session := newSession(t, client)
	set := setIn(t, session, "me", "/a", "/b", "/c")
	holder := newHolder(t, client, "/b", "the holder")
	before := revisionOf(t, client)
	_, err := set.TryLock(etcdtest.Context(t))
	var busy *etcdlock.BusyError
	if !errors.As(err, &busy) || busy.Key != "/b" || busy.Holder != "the holder" {
		t.Errorf("tried: %v", err)
	}
	if after := revisionOf(t, client); after != before {
		t.Errorf("the try has written %d revisions", after-before)
	}
	mustUnlock(t, holder)
	held, err := set.TryLock(etcdtest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newLock(t, client, "/c", "another").TryLock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("/c is free: %v", err)
	}
	if err := held.Unlock(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	// Below /a is a key that is no place in line: a lock's, whose name begins with that of another.
	newHolder(t, client, "/a/b", "the holder")
	if held, err = set.TryLock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	if err := set.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	if held.Remaining() > 0 {
		t.Error("held after Close")
	}
}

// TestSetsInAnyOrder: sets that name their keys in any order, in one session and in others, and
// those who take single locks in order all get their turns. No two hold one key.
func TestSetsInAnyOrder(t *testing.T) {
	s := etcdtest.Start(t)
	keys := []string{"/a", "/b", "/c"}
	orders := [][]string{{"/a", "/b", "/c"}, {"/c", "/b", "/a"}, {"/b", "/a"}, {"/c", "/a"}}
	var mu sync.Mutex
	holders := map[string]string{}
	work := func(id string, on []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, key := range on {
			if by := holders[key]; by != "" {
				t.Errorf("%s has %q, and so has %s", id, key, by)
			}
			holders[key] = id
		}
	}
	over := func(on []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, key := range on {
			holders[key] = ""
		}
	}
	var all sync.WaitGroup
	session := newSession(t, s.Client(t))
	for i, order := range slices.Concat(orders, orders) {
		if i == len(orders) {
			session = newSession(t, s.Client(t))
		}
		set := setIn(t, session, fmt.Sprint(i), order...)
		all.Go(func() {
			for range 10 {
				held, err := set.Lock(etcdtest.Context(t))
				if err != nil {
					t.Error(err)
					return
				}
				work(fmt.Sprint("set ", i), order)
				time.Sleep(time.Millisecond)
				over(order)
				if err := held.Unlock(etcdtest.Context(t)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i, key := range keys {
		l := newLock(t, s.Client(t), key, "single")
		all.Go(func() {
			for range 10 {
				err := l.Run(etcdtest.Context(t), func(context.Context, *etcdlock.Held) error {
					work(fmt.Sprint("single ", i), keys[i:i+1])
					over(keys[i : i+1])
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// TestSetLost: a set that loses one lock has lost all. The error names which, and when it is
// unlocked nothing is left.
func TestSetLost(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	session := newSession(t, client)
	set := setIn(t, session, "me", "/lost/a", "/lost/b", "/lost/c")
	held := mustLockSet(t, set)
	ctx := held.Context(context.Background())
	if _, err := client.Delete(etcdtest.Context(t), placeOf(t, client, "/lost/b", "me").key); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	var lost *etcdlock.LostError
	if !errors.As(context.Cause(ctx), &lost) || lost.Key != "/lost/b" || !lost.Reason.Forced() {
		t.Errorf("lost: %v", context.Cause(ctx))
	}
	<-held.Expired()
	if held.Remaining() > 0 {
		t.Error("it remains")
	}
	if err := set.Unlock(etcdtest.Context(t)); !errors.As(err, &lost) || lost.Key != "/lost/b" || strings.Contains(err.Error(), "/lost/a") {
		t.Errorf("unlocked: %v", err)
	}
	awaitKeys(t, client, "/lost/", 0)
	mustLockSet(t, set)
}

// TestSetLosesWhileItWaits: nothing runs under the locks that a set has while it waits for the
// next: if one of those is lost, it begins again. Close ends the wait, and leaves nothing.
func TestSetLosesWhileItWaits(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	holder := newHolder(t, client, "/w/b", "the holder")
	session := newSession(t, client)
	set := setIn(t, session, "me", "/w/a", "/w/b")
	waits := make(chan struct{}, 8)
	set.OnWait = func() { waits <- struct{}{} }
	type result struct {
		held *etcdlock.HeldSet
		err  error
	}
	got := make(chan result, 1)
	lock := func() {
		held, err := set.Lock(etcdtest.Context(t))
		got <- result{held, err}
	}
	go lock()
	<-waits
	if err := set.Unlock(etcdtest.Context(t)); err != etcdlock.ErrNotHeld {
		t.Errorf("unlocked while it waits: %v", err)
	}
	first := placeOf(t, client, "/w/a", "me")
	if _, err := client.Delete(etcdtest.Context(t), first.key); err != nil {
		t.Fatal(err)
	}
	<-waits
	mustUnlock(t, holder)
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	if err := r.held.Unlock(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	mustLock(t, holder)
	go lock()
	<-waits
	if err := set.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	if r := <-got; !errors.Is(r.err, etcdlock.ErrClosed) {
		t.Errorf("Close has ended the wait with %v", r.err)
	}
	awaitKeys(t, client, "/w/a", 0)
	go lock()
	<-waits
	if err := session.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	if r := <-got; !errors.Is(r.err, etcdlock.ErrClosed) {
		t.Errorf("Close of the session has ended the wait with %v", r.err)
	}
	awaitKeys(t, client, "/w/a", 0)
}

// TestSetUnderTwoLeases: if the session takes another lease while a set waits, the set's locks hang
// on two. Then the set names none of them, and OnRenew is called for both.
func TestSetUnderTwoLeases(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	client := s.Client(t)
	session := newSession(t, behind)
	holder := newHolder(t, client, "/two/a", "the holder")
	set := setIn(t, session, "me", "/two/a", "/two/b", "/two/c")
	waits, renewed := make(chan struct{}, 1), make(chan struct{}, 100)
	set.OnWait = func() { waits <- struct{}{} }
	set.OnRenew = func() { renewed <- struct{}{} }
	got := make(chan *etcdlock.HeldSet, 1)
	go func() {
		held, err := set.Lock(etcdtest.Context(t))
		if err != nil {
			t.Error(err)
		}
		got <- held
	}()
	<-waits
	other := lockIn(t, session, "/two/other", "me")
	for range 30 { // leaves places of which it is not known whether they will be created
		hit := intercept(gate, 1, etcdtest.Fail, joins...)
		mustLock(t, other)
		<-hit
		mustUnlock(t, other)
	}
	mustUnlock(t, holder)
	held := <-got
	if a, b := placeOf(t, client, "/two/a", "me").lease, placeOf(t, client, "/two/b", "me").lease; a == b || held.Lease() != 0 {
		t.Errorf("the locks hang on %x and %x, and the set on %x", a, b, held.Lease())
	}
	for len(renewed) > 0 {
		<-renewed
	}
	if err := held.Refresh(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	await(t, "a call of OnRenew for each lease", func() (bool, any) { return len(renewed) == 2, len(renewed) })
	if err := held.Unlock(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
}

// TestSetClosedWithItsSession: Close of the session gives a set back.
func TestSetClosedWithItsSession(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	session := newSession(t, client)
	set := setIn(t, session, "me", "/closed/a", "/closed/b")
	held := mustLockSet(t, set)
	ctx := held.Context(context.Background())
	if err := session.Close(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	<-held.Expired()
	if !errors.Is(context.Cause(ctx), etcdlock.ErrNotHeld) {
		t.Errorf("its context: %v", context.Cause(ctx))
	}
	if err := set.Unlock(etcdtest.Context(t)); err != etcdlock.ErrNotHeld {
		t.Errorf("unlocked: %v", err)
	}
	if _, err := set.Lock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("locked: %v", err)
	}
	awaitKeys(t, client, "/closed/", 0)
}

// TestSetUnknown: whatever becomes of the request that takes a set, or gives it back, it is held,
// and then nothing is left.
func TestSetUnknown(t *testing.T) {
	s := etcdtest.Shared(t)
	unknown := func(t *testing.T, mode etcdlock.Mode, kind string, verdict etcdtest.Verdict) {
		t.Parallel()
		gate, behind := s.Gated(t)
		session := newSession(t, behind)
		prefix := fmt.Sprintf("/unknown/%s/", t.Name())
		set := setIn(t, session, "me", prefix+"a", prefix+"b", prefix+"c")
		set.Mode = mode
		hit := intercept(gate, 1, verdict, kind)
		held := mustLockSet(t, set)
		// Who shares a lock, and gets no answer, has the token of the read that tells.
		if mode == etcdlock.Exclusive && held.Token(prefix+"a") != held.Token(prefix+"c") {
			t.Error("the tokens of one transaction differ")
		}
		if err := held.Unlock(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
		select {
		case <-hit:
		default:
			t.Error("there was no such request")
		}
		awaitKeys(t, s.Client(t), prefix, 0)
	}
	for _, kind := range []string{"AcquireAllIfFree", "Batch"} {
		for name, verdict := range verdicts {
			for _, mode := range []etcdlock.Mode{etcdlock.Exclusive, etcdlock.Shared} {
				t.Run(fmt.Sprintf("%s/%s/%v", kind, name, mode), func(t *testing.T) { unknown(t, mode, kind, verdict) })
			}
		}
	}
}

// TestSetRefused: names, and sessions, of which there can be no set.
func TestSetRefused(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	session := newSession(t, client)
	for want, keys := range map[string][]string{
		"no keys":   {},
		"twice":     {"/a", "/b", "/a"},
		"empty":     {"/a", ""},
		"ends in":   {"/a", "/b~since"},
		"4096 are":  {strings.Repeat("a", etcdlock.MaxKeyBytes+1)},
		"not UTF-8": {"/a"},
	} {
		id := "me"
		if want == "not UTF-8" {
			id = "\xff"
		}
		if _, err := session.NewSet(keys, id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("keys %.50q: %v, want %q", keys, err, want)
		}
	}
	if _, err := newLock(t, client, "/single", "me").Session().NewSet([]string{"/a"}, "me"); err == nil || !strings.Contains(err.Error(), "/single") {
		t.Errorf("the session of a lock makes a set: %v", err)
	}
	if _, err := new(etcdlock.Set).Lock(t.Context()); err == nil {
		t.Error("the zero Set locks")
	}
}

// TestSetWithoutPermission: one lock that its user may not have costs the set, and leaves nothing.
func TestSetWithoutPermission(t *testing.T) {
	s := etcdtest.Start(t)
	config := s.AddUser(t, "worker", "secret", "/may/a", "/may/c")
	s.EnableAuth(t, "rootsecret")
	client := etcdtest.Dial(t, config)
	session := newSession(t, client)
	for _, try := range []bool{false, true} {
		set := setIn(t, session, "me", "/may/a", "/may/b", "/may/c")
		lock := set.Lock
		if try {
			lock = set.TryLock
		}
		if _, err := lock(etcdtest.Context(t)); err == nil || !strings.Contains(err.Error(), "permission denied") || !strings.Contains(err.Error(), "/may/b") {
			t.Errorf("locked: %v", err)
		}
	}
	mustLockSet(t, setIn(t, session, "me", "/may/a", "/may/c"))
}

// TestSetOfMany: a set of more locks than a transaction may have operations for. What etcd refuses
// for that is asked once.
func TestSetOfMany(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(16))
	client := s.Client(t)
	gate, behind := s.Gated(t)
	joint := intercept(gate, every, etcdtest.Pass, "AcquireAllIfFree", "Batch")
	session := newSession(t, behind)
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprintf("/many/%02d", i))
	}
	set := setIn(t, session, "me", keys...)
	for _, lock := range []func(context.Context) (*etcdlock.HeldSet, error){set.Lock, set.TryLock, set.Lock} {
		held, err := lock(etcdtest.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		awaitKeys(t, client, "/many/", 2*len(keys))
		if err := held.Unlock(etcdtest.Context(t)); err != nil {
			t.Error(err)
		}
		awaitKeys(t, client, "/many/", 0)
	}
	if n := len(joint); n > 2 {
		t.Errorf("%d requests for all locks", n)
	}
}

// TestSetRefreshed: to renew a set is to look at each of its locks, also where no watch tells.
func TestSetRefreshed(t *testing.T) {
	s := etcdtest.Shared(t)
	gate, behind := s.Gated(t)
	gate.InterceptAnswers(func(method string, _ proto.Message) etcdtest.Verdict {
		if strings.HasSuffix(method, "/Watch") {
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	set := setIn(t, newSession(t, behind), "me", "/refreshed/a", "/refreshed/b")
	held := mustLockSet(t, set)
	if err := held.Refresh(etcdtest.Context(t)); err != nil {
		t.Error(err)
	}
	if _, err := s.Client(t).Delete(etcdtest.Context(t), placeOf(t, s.Client(t), "/refreshed/b", "me").key); err != nil {
		t.Fatal(err)
	}
	var lost *etcdlock.LostError
	if err := held.Refresh(etcdtest.Context(t)); !errors.As(err, &lost) || lost.Key != "/refreshed/b" {
		t.Errorf("renewed: %v", err)
	}
}

// TestSetUnlockedBefore: what was unlocked before is not held, also while the set waits again.
func TestSetUnlockedBefore(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	set := setIn(t, newSession(t, client), "me", "/before/a", "/before/b")
	held := mustLockSet(t, set)
	if err := held.Unlock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-held.Expired():
	default:
		t.Error("it has not expired when Unlock has returned")
	}
	newHolder(t, client, "/before/b", "the holder")
	waits := make(chan struct{}, 8)
	set.OnWait = func() { waits <- struct{}{} }
	for _, end := range []func(cancel context.CancelFunc){
		func(cancel context.CancelFunc) { cancel() },
		func(context.CancelFunc) {
			if err := set.Close(etcdtest.Context(t)); err != nil {
				t.Error(err)
			}
		},
	} {
		ctx, cancel := context.WithCancel(etcdtest.Context(t))
		got := make(chan error, 1)
		go func() {
			_, err := set.Lock(ctx)
			got <- err
		}()
		<-waits
		if err := held.Unlock(etcdtest.Context(t)); err != etcdlock.ErrNotHeld {
			t.Errorf("unlocked again: %v", err)
		}
		end(cancel)
		if err := <-got; err == nil {
			t.Error("it has got what another one holds")
		}
		if keys := etcdtest.Keys(t, client, "/before/a"); len(keys) > 0 {
			t.Errorf("left when the wait has ended: %v", keys)
		}
		cancel()
	}
}

// TestSetUnanswered: who gets no answer is told so in time, whichever request it is.
func TestSetUnanswered(t *testing.T) {
	s := etcdtest.Shared(t)
	for name, kinds := range map[string][]string{
		"all at once":   {"AcquireAllIfFree", "AcquireIfFree", "Acquire", "Read"},
		"the second":    nil,
		"not the lease": {"grant", "AcquireAllIfFree"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate, behind := s.Gated(t)
			session := newSession(t, behind)
			session.ConnectTimeout = time.Second
			prefix := "/unanswered/" + name + "/"
			set := setIn(t, session, "me", prefix+"a", prefix+"b")
			if name != "not the lease" {
				if err := session.Prepare(etcdtest.Context(t)); err != nil {
					t.Fatal(err)
				}
			}
			if kinds == nil {
				newHolder(t, s.Client(t), prefix+"b", "the holder")
			}
			var silent atomic.Bool
			gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
				kind := kindOf(method, request)
				if kinds == nil && kind == "Acquire" && strings.Contains(fmt.Sprint(request), prefix+"b") {
					silent.Store(true)
				}
				if slices.Contains(kinds, kind) || silent.Load() && kind != "renew" {
					return etcdtest.Drop
				}
				return etcdtest.Pass
			})
			if _, err := set.Lock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrNoAnswer) {
				t.Errorf("locked: %v", err)
			}
			gate.Intercept(nil)
			awaitKeys(t, s.Client(t), prefix+"a", 0)
		})
	}
}

// TestSetBatchRefused: where etcd refuses what gives a set back as a whole, each lock is given back
// by itself, also after a try of which it is not known whether it was applied.
func TestSetBatchRefused(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(16))
	gate, behind := s.Gated(t)
	for _, verdict := range []etcdtest.Verdict{etcdtest.Pass, etcdtest.Fail, etcdtest.FailApplied} {
		var keys []string
		for i := range 20 {
			keys = append(keys, fmt.Sprintf("/batch/%02d", i))
		}
		set := setIn(t, newSession(t, behind), "me", keys...)
		mustLockSet(t, set)
		intercept(gate, 1, verdict, "Batch")
		if err := set.Unlock(etcdtest.Context(t)); err != nil {
			t.Errorf("%v: %.200v", verdict, err)
		}
		if left := etcdtest.Keys(t, s.Client(t), "/batch/"); len(left) > 0 {
			t.Errorf("%v: %d keys are left", verdict, len(left))
		}
	}
}

// TestSetWithoutSpace: a lock that can be given back without space is, also if another one of the
// set cannot be passed on.
func TestSetWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	set := setIn(t, newSession(t, client), "me", "/space/a", "/space/b")
	mustLockSet(t, set)
	w := queue(t, newLock(t, client, "/space/b", "next"))
	s.Alarm(t, true)
	if err := set.Unlock(etcdtest.Context(t)); err != nil {
		t.Errorf("unlocked: %v", err)
	}
	if keys := etcdtest.Keys(t, client, "/space/a"); len(keys) > 0 {
		t.Errorf("left: %v", keys)
	}
	s.Alarm(t, false)
	takeTurns(t, w)
	awaitKeys(t, client, "/space/", 0)
}

// TestSetLostInSilence: what is left of a lost set does not take longer to give up than one lock.
func TestSetLostInSilence(t *testing.T) {
	gate, behind := etcdtest.Shared(t).Gated(t)
	session := newSession(t, behind)
	session.TTL = 3 * time.Second
	var keys []string
	for i := range 12 {
		keys = append(keys, fmt.Sprintf("/silence/%02d", i))
	}
	set := setIn(t, session, "me", keys...)
	held := mustLockSet(t, set)
	gate.Intercept(func(string, proto.Message) etcdtest.Verdict { return etcdtest.Drop })
	<-held.Expired()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	before := time.Now()
	if err := set.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("unlocked: %v", err)
	}
	if took := time.Since(before); took > 6*time.Second { // one after another: 12 s
		t.Errorf("it took %v", took)
	}
	gate.Intercept(nil)
}

// TestCauseOfAnotherMatter: a context may have ended because etcd has refused something. That is no
// answer to the request that is under way.
func TestCauseOfAnotherMatter(t *testing.T) {
	s := etcdtest.Shared(t)
	for _, cause := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrLeaseNotFound, rpctypes.ErrNoSpace} {
		for _, kind := range []string{"AcquireAllIfFree", "Acquire"} {
			t.Run(fmt.Sprintf("%s/%v", kind, cause), func(t *testing.T) {
				t.Parallel()
				gate, behind := s.Gated(t)
				session := newSession(t, behind)
				prefix := "/" + t.Name() + "/"
				set := setIn(t, session, "me", prefix+"a", prefix+"b")
				lock := lockIn(t, session, prefix+"a", "me")
				intercept(gate, 1, etcdtest.HoldRequest, kind)
				ctx, cancel := context.WithCancelCause(etcdtest.Context(t))
				got := make(chan error, 1)
				go func() {
					var err error
					if kind == "Acquire" {
						_, err = lock.Lock(ctx)
					} else {
						_, err = set.Lock(ctx)
					}
					got <- err
				}()
				request := gate.AwaitHeld(t)
				cancel(cause)
				if err := <-got; !errors.Is(err, cause) {
					t.Errorf("locked: %v", err)
				}
				if err := request.Release(); err != nil {
					t.Fatal(err)
				}
				awaitKeys(t, s.Client(t), prefix, 0)
			})
		}
	}
}

// TestNoSet: nil and the zero HeldSet hold nothing.
func TestNoSet(t *testing.T) {
	for _, held := range []*etcdlock.HeldSet{nil, new(etcdlock.HeldSet)} {
		<-held.Expired()
		ctx := held.Context(t.Context())
		if context.Cause(ctx) != etcdlock.ErrNotHeld || held.Remaining() != 0 || held.Token("/a") != 0 || held.Lease() != 0 || len(held.IsHolder()) != 1 {
			t.Error("it holds something")
		}
		if held.Unlock(t.Context()) != etcdlock.ErrNotHeld || held.Refresh(t.Context()) != etcdlock.ErrNotHeld {
			t.Error("it is unlocked, or renewed")
		}
	}
}
