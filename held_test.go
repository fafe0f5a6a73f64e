package etcdlock_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/namespace"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestContextBoundsTheWait: what ends the wait does not end the work.
func TestContextBoundsTheWait(t *testing.T) {
	s := etcdtest.Shared(t)
	l := newLock(t, s.Client(t), "/bounds", "me")
	l.Session().RefreshInterval = 20 * time.Millisecond
	wait, end := context.WithCancel(etcdtest.Context(t))
	held, err := gripOf(l.Lock(wait))
	if err != nil {
		t.Fatal(err)
	}
	end()
	awaitRenewals(t, l, held, 3)
	parent, endParent := context.WithCancelCause(context.Background())
	ctx := held.Held.Context(parent)
	why := errors.New("the caller's reason")
	endParent(why)
	if <-ctx.Done(); context.Cause(ctx) != why || ctx.Err() != context.Canceled {
		t.Errorf("a context ended with its parent: %v, %v", ctx.Err(), context.Cause(ctx))
	}
	if held.Err() != nil || held.Remaining() <= 0 {
		t.Errorf("the lock ended with one of its contexts: %v", context.Cause(held))
	}
	mustUnlock(t, l)
	if ctx := held.Held.Context(context.Background()); context.Cause(ctx) != context.Cause(held) {
		t.Errorf("a context made after Unlock: %v", context.Cause(ctx))
	}
}

// TestHeldIsOneHolding: no answer of a Held is about another holding.
func TestHeldIsOneHolding(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	l := newLock(t, client, "/holding", "me")
	over := func(name string, h *etcdlock.Held) {
		t.Helper()
		<-h.Expired()
		if h.Remaining() != 0 || h.Lease() != 0 || applied(t, client, h.IsHolder()) {
			t.Errorf("%s: %v remain, lease %x, is holder: %v", name, h.Remaining(), h.Lease(), h.IsHolder())
		}
		if err := h.Refresh(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("%s: Refresh: %v", name, err)
		}
		if err := h.Unlock(ctx); err != etcdlock.ErrNotHeld {
			t.Errorf("%s: Unlock: %v", name, err)
		}
		if err := h.Context(ctx).Err(); err == nil {
			t.Errorf("%s: its context goes on", name)
		}
	}
	over("nil", nil)
	over("the zero Held", new(etcdlock.Held))
	first := mustLock(t, l)
	if again := mustLock(t, l); again.Held != first.Held {
		t.Error("locked again, it is another Held")
	}
	if first.Token() == 0 || first.Lease() == 0 || first.Remaining() <= 0 || !applied(t, client, first.IsHolder()) {
		t.Errorf("token %d, lease %x, %v remain", first.Token(), first.Lease(), first.Remaining())
	}
	if err := first.Refresh(ctx); err != nil {
		t.Error(err)
	}
	if err := first.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	over("unlocked", first.Held)
	second := mustLock(t, l)
	over("unlocked, and locked again", first.Held)
	if second.Err() != nil || second.Token() <= first.Token() || !applied(t, client, second.IsHolder()) {
		t.Errorf("the second: %v, token %d after %d", context.Cause(second), second.Token(), first.Token())
	}
	mustUnlock(t, l)
	over("unlocked by its Lock", second.Held)
}

// TestRun: it locks, works, and unlocks whatever the work does.
func TestRun(t *testing.T) {
	etcdtest.NoLeaks(t)
	s := etcdtest.Start(t)
	client := s.Client(t)
	l := newLock(t, client, "/run", "me")
	type work = func(context.Context, *etcdlock.Held) error
	errWork := errors.New("the work's")
	deleteKey := func(ctx context.Context, _ *etcdlock.Held) error {
		if _, err := client.Delete(ctx, "/run"); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	for name, tt := range map[string]struct {
		work work
		is   []error
		lost bool
	}{
		"ends well":          {func(context.Context, *etcdlock.Held) error { return nil }, nil, false},
		"fails":              {func(context.Context, *etcdlock.Held) error { return errWork }, []error{errWork}, false},
		"unlocks":            {func(ctx context.Context, held *etcdlock.Held) error { return held.Unlock(ctx) }, nil, false},
		"is cut short":       {func(context.Context, *etcdlock.Held) error { return l.Unlock(ended()) }, []error{etcdlock.ErrNotHeld}, false},
		"is closed":          {func(context.Context, *etcdlock.Held) error { return l.Close(ended()) }, []error{etcdlock.ErrNotHeld}, false},
		"loses the lock":     {deleteKey, []error{etcdlock.ErrNotHeld}, true},
		"fails, and says so": {func(ctx context.Context, h *etcdlock.Held) error { return errors.Join(deleteKey(ctx, h), errWork) }, []error{errWork, etcdlock.ErrNotHeld}, true},
		"says what it lost": {func(ctx context.Context, h *etcdlock.Held) error {
			deleteKey(ctx, h)
			return context.Cause(ctx)
		}, []error{etcdlock.ErrNotHeld}, true},
	} {
		err := l.Run(etcdtest.Context(t), tt.work)
		if tt.is == nil && err != nil || errors.As(err, new(*etcdlock.LostError)) != tt.lost {
			t.Errorf("work that %s: %v", name, err)
		}
		for _, is := range tt.is {
			if !errors.Is(err, is) {
				t.Errorf("work that %s: %v is not %v", name, err, is)
			}
		}
		if err != nil && strings.Count(err.Error(), "lost") > 1 {
			t.Errorf("work that %s: it is said twice: %v", name, err)
		}
		if l.Holding() != nil {
			t.Errorf("work that %s leaves the lock held", name)
		}
	}
	func() {
		defer func() { recover() }()
		l.Run(etcdtest.Context(t), func(context.Context, *etcdlock.Held) error { panic("at work") })
	}()
	if _, err := newLock(t, client, "/run", "next").TryLock(etcdtest.Context(t)); err != nil {
		t.Errorf("after a panic: %v", err)
	}
}

// TestRunTakesTurns: goroutines that share a Lock, which Lock would let in all at once.
func TestRunTakesTurns(t *testing.T) {
	s := etcdtest.Shared(t)
	l := newLock(t, s.Client(t), "/turns", "me")
	var inside atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := l.Run(etcdtest.Context(t), func(ctx context.Context, held *etcdlock.Held) error {
				if inside.Add(1) > 1 {
					t.Error("two are inside")
				}
				held.Refresh(ctx) // takes a while
				inside.Add(-1)
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	mustLock(t, l)
	if err := l.Run(etcdtest.Context(t), func(context.Context, *etcdlock.Held) error { return nil }); err == nil || !strings.Contains(err.Error(), "held already") {
		t.Errorf("Run while it is held: %v", err)
	}
}

// TestEndedContext: what the caller's context was for is over, and so is the holding: the next one
// does not wait for its TTL.
func TestEndedContext(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	for name, end := range map[string]func(*etcdlock.Lock, *etcdlock.Session, *etcdlock.Held) error{
		"Lock.Unlock":   func(l *etcdlock.Lock, _ *etcdlock.Session, _ *etcdlock.Held) error { return l.Unlock(ended()) },
		"Lock.Close":    func(l *etcdlock.Lock, _ *etcdlock.Session, _ *etcdlock.Held) error { return l.Close(ended()) },
		"Held.Unlock":   func(_ *etcdlock.Lock, _ *etcdlock.Session, h *etcdlock.Held) error { return h.Unlock(ended()) },
		"Session.Close": func(_ *etcdlock.Lock, s *etcdlock.Session, _ *etcdlock.Held) error { return s.Close(ended()) },
	} {
		for _, own := range []bool{true, false} {
			l := newLock(t, client, "/ended", "me")
			if !own {
				_, l = sessionLock(t, client, "/ended", ttl)
			}
			held := mustLock(t, l)
			if err := end(l, l.Session(), held.Held); err != nil {
				t.Errorf("%s, own session %v: %v", name, own, err)
			}
			next := newLock(t, client, "/ended", "next")
			if _, err := next.TryLock(etcdtest.Context(t)); err != nil {
				t.Errorf("after %s, own session %v: %v", name, own, err)
			}
			mustUnlock(t, next)
		}
	}
}

// TestCloseEndsAWait: a Lock that waits is told, and its place in line is given up.
func TestCloseEndsAWait(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	newHolder(t, client, "/closed", "holder")
	own := newLock(t, client, "/closed", "own")
	_, shared := sessionLock(t, client, "/closed", ttl)
	for _, l := range []*etcdlock.Lock{own, shared} {
		w := queue(t, l)
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-w.got; !errors.Is(err, etcdlock.ErrClosed) {
			t.Errorf("Lock: %v", err)
		}
		if line := etcdtest.Keys(t, client, "/closed/"); len(line) != 1 {
			t.Errorf("%d stand in line", len(line))
		}
	}
	waits := queue(t, own)
	if err := own.Session().Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-waits.got; !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("Lock, and its own session was closed: %v", err)
	}
	if _, err := own.Lock(ctx); !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("Lock after its own session was closed: %v", err)
	}
}

// TestUnlockDoesNotWaitForARefresh: one that etcd does not answer.
func TestUnlockDoesNotWaitForARefresh(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	l := newLock(t, behind, "/unheard", "me")
	renewing := intercept(gate, every, etcdtest.Drop, "renew")
	for name, refresh := range map[string]func(context.Context) error{
		"Refresh": func(ctx context.Context) error { return l.Holding().Refresh(ctx) },
		"Lock":    func(ctx context.Context) error { _, err := l.Lock(ctx); return err },
	} {
		mustLock(t, l)
		got := inBackground(func() error { return refresh(context.Background()) })
		<-renewing
		mustUnlock(t, l)
		err := <-got
		if name == "Refresh" && !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Errorf("the refresh: %v", err)
		}
		// It was unlocked, so it locks again.
		if name == "Lock" && (err != nil || l.Holding() == nil) {
			t.Errorf("Lock: %v", err)
		}
		l.Unlock(etcdtest.Context(t))
	}
}

// TestBusy: TryLock says who is in the way.
func TestBusy(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	busy := func(key, holder string, place int, says string) {
		t.Helper()
		_, err := newLock(t, client, key, "asks").TryLock(ctx)
		var b *etcdlock.BusyError
		if !errors.As(err, &b) || !errors.Is(err, etcdlock.ErrBusy) {
			t.Fatalf("TryLock: %v", err)
		}
		if b.Key != key || b.Holder != holder || b.Place != place || !strings.Contains(b.Error(), says) {
			t.Errorf("%+v (%v), want held by %q, place %d, %q", *b, b, holder, place, says)
		}
	}
	newHolder(t, client, "/busy", "holder")
	busy("/busy", "holder", 1, `held by "holder"`)
	queue(t, newLock(t, client, "/busy", "waits"))
	queue(t, newLock(t, client, "/busy", "waits"))
	busy("/busy", "holder", 3, `held by "holder"`)
	for _, value := range []string{"x", ""} {
		must(t)(client.Put(ctx, "/busy-by-hand", value))
		busy("/busy-by-hand", value, 1, "held by")
	}
	must(t)(client.Delete(ctx, "/busy"))
	busy("/busy", "", 3, "stands in line")
	// No place: who tries has to join.
	must(t)(client.Put(ctx, "/busy/stray", "x"))
	busy("/busy", "", 4, "stands in line")
	for _, key := range []string{"/busy-by-hand", "/busy/stray"} {
		if _, err := client.Delete(ctx, key); err != nil {
			t.Error(err)
		}
	}
}

// TestRefusedAtOnce: what could not work is refused with a sentence, and never waited for.
func TestRefusedAtOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	ctx := etcdtest.Context(t)
	lockOf := func(set func(*etcdlock.Session)) func() error {
		return func() error {
			l := newLock(t, s.Client(t), "/refused", "me")
			set(l.Session())
			_, err := l.Lock(ctx)
			return err
		}
	}
	wrapped := func(wrap func(*clientv3.Client)) func() error {
		return func() error {
			client := s.Client(t)
			wrap(client)
			_, err := etcdlock.New(client, "/refused", "me", ttl)
			_, other := etcdlock.NewSession(client, ttl)
			if err == nil || other == nil || err.Error() != other.Error() {
				t.Errorf("New: %v; NewSession: %v", err, other)
			}
			return err
		}
	}
	for what, tt := range map[string]struct {
		do   func() error
		says string
	}{
		"no client":           {func() error { _, err := etcdlock.New(nil, "k", "", ttl); return err }, "client is nil"},
		"the zero client":     {func() error { _, err := etcdlock.NewSession(new(clientv3.Client), ttl); return err }, "not made by clientv3.New"},
		"a wrapped KV":        {wrapped(func(c *clientv3.Client) { c.KV = namespace.NewKV(c.KV, "p/") }), "KV was replaced by a *namespace.kvPrefix"},
		"a wrapped Watcher":   {wrapped(func(c *clientv3.Client) { c.Watcher = namespace.NewWatcher(c.Watcher, "p/") }), "Watcher was replaced"},
		"a wrapped Lease":     {wrapped(func(c *clientv3.Client) { c.Lease = namespace.NewLease(c.Lease, "p/") }), "Lease was replaced"},
		"the zero Lock":       {func() error { _, err := new(etcdlock.Lock).Lock(ctx); return err }, "not made by New"},
		"the zero Lock, Try":  {func() error { _, err := new(etcdlock.Lock).TryLock(ctx); return err }, "not made by New"},
		"the zero Lock, Run":  {func() error { return new(etcdlock.Lock).Run(ctx, nil) }, "not made by New"},
		"unlock a zero Lock":  {func() error { return new(etcdlock.Lock).Unlock(ctx) }, "not made by New"},
		"close a nil Lock":    {func() error { return (*etcdlock.Lock)(nil).Close(ctx) }, "not made by New"},
		"prepare a zero Lock": {func() error { return new(etcdlock.Lock).Prepare(ctx) }, "not made by New"},
		"a nil Session":       {func() error { _, err := (*etcdlock.Session)(nil).NewLock("k", ""); return err }, "not made by NewSession"},
		"the zero Session":    {func() error { return new(etcdlock.Session).Prepare(ctx) }, "not made by NewSession"},
		"close a nil Session": {func() error { return (*etcdlock.Session)(nil).Close(ctx) }, "not made by NewSession"},
		"two in one's own": {func() error {
			_, err := newLock(t, s.Client(t), "/refused", "me").Session().NewLock("k", "")
			return err
		}, `that of lock "/refused" alone`},
		"a negative refresh": {lockOf(func(s *etcdlock.Session) { s.RefreshInterval = -time.Second }), "RefreshInterval of -1s is negative"},
		"a tiny refresh":     {lockOf(func(s *etcdlock.Session) { s.RefreshInterval = time.Millisecond }), "RefreshInterval of 1ms is below 10ms"},
		"a negative grace":   {lockOf(func(s *etcdlock.Session) { s.Grace = -time.Second }), "Grace of -1s is negative"},
		"a negative timeout": {lockOf(func(s *etcdlock.Session) { s.ConnectTimeout = -1 }), "ConnectTimeout of -1ns is negative"},
		"a long command": {func() error {
			l := newLock(t, s.Client(t), "/refused", "me")
			l.Command = strings.Repeat("x", 4097)
			return l.Prepare(ctx)
		}, "the Command has 4097 bytes, 4096 are the most"},
		"a fraction of a second": {lockOf(func(s *etcdlock.Session) { s.TTL = 1500 * time.Millisecond }), "whole seconds"},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", what, err, tt.says)
		}
	}
}

// TestUnlockedIsNoHolder: once Unlock was called the holding guards nothing, though etcd has not
// heard of it.
func TestUnlockedIsNoHolder(t *testing.T) {
	s, ctx := etcdtest.Start(t), etcdtest.Context(t)
	gate, behind := s.Gated(t)
	intercept(gate, 1, etcdtest.HoldRequest, "Release")
	l := newLock(t, behind, "/unheard", "me")
	held := mustLock(t, l)
	got := inBackground(func() error { return l.Unlock(ctx) })
	release := gate.AwaitHeld(t)
	if applied(t, s.Client(t), held.IsHolder()) {
		t.Error("it guards a transaction")
	}
	release.Release()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestManyContexts: contexts that end leave nothing behind, and do not hold up what comes after.
func TestManyContexts(t *testing.T) {
	s := etcdtest.Shared(t)
	l := newLock(t, s.Client(t), "/contexts", "me")
	held := mustLock(t, l)
	parent, end := context.WithCancel(context.Background())
	for range 20_000 {
		held.Held.Context(parent)
	}
	end()
	await(t, "the contexts to be forgotten", func() (bool, any) {
		n := l.Contexts()
		return n == 1, n // that of held
	})
	mustUnlock(t, l)
}

// TestIsHolderBesideMutex: a place that an operator deletes guards nothing, though the lock's key
// is still there: a Mutex of etcd's does not look at it.
func TestIsHolderBesideMutex(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	inBoth(t, client, "/beside", ttl, func(t *testing.T, l *etcdlock.Lock) {
		held := mustLock(t, l)
		before := held.IsHolder()
		m := newContender(t, client, "/beside", mutex)
		got := inBackground(func() error { _, err := m.lock(ctx); return err })
		awaitKeys(t, client, "/beside/", 2)
		if !applied(t, client, before) {
			t.Error("it guards nothing while the lock is held")
		}
		must(t)(client.Delete(ctx, placeOf(t, client, "/beside", "me").key))
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if applied(t, client, before) || applied(t, client, held.IsHolder()) {
			t.Error("it guards transactions while the Mutex has the lock")
		}
		<-held.Done()
		if err := m.unlock(ctx); err != nil {
			t.Error(err)
		}
		l.Unlock(ctx)
	})
}

// TestLockOfALostLock: the place in line keeps others out until the work has stopped, whatever
// another goroutine asks of the Lock.
func TestLockOfALostLock(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	l := newLock(t, client, "/winding-down", "me")
	held := mustLock(t, l)
	must(t)(client.Delete(ctx, "/winding-down"))
	awaitLoss(t, held)
	for name, lock := range map[string]func(context.Context) (*etcdlock.Held, error){"Lock": l.Lock, "TryLock": l.TryLock} {
		if _, err := lock(ctx); !errors.As(err, new(*etcdlock.LostError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if held.Remaining() <= 0 {
		t.Error("nobody keeps others out any more")
	}
	if err := l.Unlock(ctx); !errors.Is(err, etcdlock.ErrNotHeld) {
		t.Errorf("Unlock: %v", err)
	}
	mustLock(t, l)
}

// TestRunBesideLock: a Run that waits does not join in what another call has got meanwhile.
func TestRunBesideLock(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder, l := newLock(t, client, "/both", "holder"), newLock(t, client, "/both", "me")
	mustLock(t, holder)
	w := queue(t, l)
	got := inBackground(func() error {
		return l.Run(ctx, func(context.Context, *etcdlock.Held) error {
			t.Error("it works under what Lock has got")
			return nil
		})
	})
	mustUnlock(t, holder)
	w.mustGet(t)
	if err := <-got; err == nil || !strings.Contains(err.Error(), "held already") {
		t.Errorf("Run: %v", err)
	}
	mustUnlock(t, l)
}

// TestSettingsChangedUnderALease: they count from the next lease on.
func TestSettingsChangedUnderALease(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	session, l := sessionLock(t, s.Client(t), "/settings", 10*time.Second)
	session.Grace = 7 * time.Second
	held := mustLock(t, l)
	if left := held.Remaining(); left > 9*time.Second {
		await(t, "some validity to pass", func() (bool, any) {
			left := held.Remaining()
			return left <= 7*time.Second, left
		})
	}
	if held.Err() != nil {
		t.Errorf("lost: %v", context.Cause(held))
	}
}
