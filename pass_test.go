package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A waiter is a Lock whose turn has not come yet.
type waiter struct {
	*etcdlock.Lock
	got   chan error
	leave context.CancelFunc
}

// queue lets a lock wait, and returns once it stands in line.
func queue(t testing.TB, l *etcdlock.Lock) *waiter {
	t.Helper()
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	t.Cleanup(cancel)
	w := &waiter{l, make(chan error, 1), cancel}
	waits := make(chan struct{}, 8)
	l.OnWait = func() { waits <- struct{}{} }
	go func() { _, err := l.Lock(ctx); w.got <- err }()
	select {
	case <-waits:
	case err := <-w.got:
		t.Fatalf("does not wait: %v", err)
	}
	return w
}

func (w *waiter) mustGet(t testing.TB) {
	t.Helper()
	if err := <-w.got; err != nil {
		t.Fatal(err)
	}
}

// gated returns a client of a server's that is behind a gate.
func gated(t testing.TB, s *etcdtest.Server) (*etcdtest.Gate, *clientv3.Client) {
	t.Helper()
	gate, config := etcdtest.NewGate(t, s.Endpoint()), s.Config()
	config.Endpoints = []string{gate.Endpoint()}
	return gate, etcdtest.Dial(t, config)
}

// gatedUser makes a user who may take one lock, and returns what returns its clients, which are
// behind a gate.
func gatedUser(t testing.TB, s *etcdtest.Server, key string) (gate *etcdtest.Gate, client func() *clientv3.Client) {
	t.Helper()
	s.AddUser(t, "worker", "pass", key)
	s.EnableAuth(t, "secret")
	gate, config := etcdtest.NewGate(t, s.Endpoint()), s.Config()
	config.Endpoints, config.Username, config.Password = []string{gate.Endpoint()}, "worker", "pass"
	return gate, func() *clientv3.Client { return etcdtest.Dial(t, config) }
}

// linked returns a client of a server's that is behind a link.
func linked(t testing.TB, s *etcdtest.Server) (*etcdtest.Link, *clientv3.Client) {
	t.Helper()
	link, config := etcdtest.NewLink(t, s.Endpoint()), s.Config()
	config.Endpoints = []string{link.Endpoint()}
	return link, etcdtest.Dial(t, config)
}

// knowsNext waits until somebody in line knows who is next.
func knowsNext(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	etcdtest.Await(t, "it to be known who is next", func(context.Context) error {
		if !l.KnowsNext() {
			return errors.New("not yet")
		}
		return nil
	})
}

// revisionOf returns etcd's present revision.
func revisionOf(t testing.TB, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), "any")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// history returns what became of a key from a revision on, as "id" for a put and "-" for a
// deletion.
func history(t testing.TB, client *clientv3.Client, key string, from int64) (all []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	events := client.Watch(ctx, key, clientv3.WithRev(from))
	for last := revisionOf(t, client); ; {
		if err := client.RequestProgress(ctx); err != nil {
			t.Fatal(err)
		}
		resp := <-events
		if resp.Err() != nil {
			t.Fatal(resp.Err())
		}
		for _, e := range resp.Events {
			if e.Type == clientv3.EventTypeDelete {
				all = append(all, "-")
			} else {
				all = append(all, string(e.Kv.Value))
			}
		}
		if resp.IsProgressNotify() && resp.Header.Revision >= last {
			return all
		}
	}
}

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
		knowsNext(t, step.from)
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

// TestPassedOnClose: who closes a lock hands it over, too. It was alone when it got it, for long
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
	knowsNext(t, a)
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
			if _, err := client.Revoke(etcdtest.Context(t), leaseOf(t, client, "/long/", "next")); err != nil {
				t.Error(err)
			}
			next.leave()
			<-next.got
		},
		"place overwritten": func(t *testing.T, s *etcdtest.Server, _, next *waiter) {
			client := s.Client(t)
			if _, err := client.Put(etcdtest.Context(t), placeWith(t, client, "/long/", "next"), "", clientv3.WithIgnoreLease()); err != nil {
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
			holder := newLock(t, client, "/long", "holder")
			mustLock(t, holder)
			next := queue(t, newLock(t, client, "/long", "next"))
			last := queue(t, newLock(t, client, "/long", "last"))
			knowsNext(t, holder)
			spoil(t, s, &waiter{Lock: holder}, next)
			mustUnlock(t, holder)
			if name == "not known" {
				next.mustGet(t)
				mustUnlock(t, next.Lock)
			}
			last.mustGet(t)
			mustUnlock(t, last.Lock)
			noKeys(t, client)
		})
	}
}

// placeWith returns the place below a prefix in whose record an id is.
func placeWith(t testing.TB, client *clientv3.Client, prefix, id string) string {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if strings.Contains(string(kv.Value), `"id":"`+id+`"`) {
			return string(kv.Key)
		}
	}
	t.Fatalf("%q is not in line", id)
	return ""
}

func leaseOf(t testing.TB, client *clientv3.Client, prefix, id string) clientv3.LeaseID {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), placeWith(t, client, prefix, id))
	if err != nil || len(resp.Kvs) == 0 {
		t.Fatalf("%v, %v", resp, err)
	}
	return clientv3.LeaseID(resp.Kvs[0].Lease)
}

// TestNotPassedOverAStranger: a Mutex that joined between the holder and the next of ours has its
// turn first, and never together with ours.
func TestNotPassedOverAStranger(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := newLock(t, client, "/stranger", "holder")
	mustLock(t, holder)
	m, got := newMutex(t, s.Client(t), "/stranger"), make(chan error, 1)
	go func() { _, err := m.lock(ctx); got <- err }()
	awaitInLine(t, client, "/stranger", 2)
	next := queue(t, newLock(t, client, "/stranger", "next"))
	knowsNext(t, holder)
	mustUnlock(t, holder)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-next.got:
		t.Fatalf("ours has it beside the Mutex: %v", err)
	// Long enough for a broken one to get it, no harm if not.
	case <-time.After(100 * time.Millisecond):
	}
	if err := m.unlock(ctx); err != nil {
		t.Fatal(err)
	}
	next.mustGet(t)
}

// TestGivenOn: a waiter that leaves, and to whom the lock was passed before it knew, gives it on to
// the next, and not back to nobody.
func TestGivenOn(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	client := s.Client(t)
	holder := newLock(t, client, "/given", "holder")
	mustLock(t, holder)
	leaver := newLock(t, behind, "/given", "leaver")
	leaver.Session().RefreshInterval = 40 * time.Second
	left := queue(t, leaver)
	began := revisionOf(t, client)
	last := queue(t, newLock(t, client, "/given", "last"))
	knowsNext(t, holder)
	knowsNext(t, leaver)
	gate.InterceptAnswers(func(_ string, answer proto.Message) etcdtest.Verdict {
		if _, watched := answer.(*pb.WatchResponse); watched {
			return etcdtest.Drop // it does not hear that its turn has come
		}
		return etcdtest.Pass
	})
	mustUnlock(t, holder)
	left.leave()
	if err := <-left.got; !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v", err)
	}
	last.mustGet(t)
	if got := history(t, client, "/given", began+1); fmt.Sprint(got) != "[leaver last]" {
		t.Errorf("the lock went %v", got)
	}
}

// TestSuccessorBeforeTheWatch: who joins before the watch on the tail of the one before is
// confirmed is known to it all the same.
func TestSuccessorBeforeTheWatch(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	client := s.Client(t)
	holder := newLock(t, client, "/late-watch", "holder")
	mustLock(t, holder)
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if _, watch := request.(*pb.WatchRequest); watch {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
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
	knowsNext(t, second)
}

// TestSuccessorOfWhoWasAlone: a holder whose place was not watched from the start finds out who
// joined first.
func TestSuccessorOfWhoWasAlone(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	client := s.Client(t)
	holder := newLock(t, behind, "/alone", "holder")
	mustLock(t, holder)
	mustUnlock(t, holder)
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if _, watch := request.(*pb.WatchRequest); watch {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	mustLock(t, holder) // expects nobody, so it watches nothing at first
	held := gate.AwaitHeld(t)
	next := queue(t, newLock(t, client, "/alone", "next"))
	gate.Intercept(nil)
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	knowsNext(t, holder)
	before := revisionOf(t, client)
	mustUnlock(t, holder)
	next.mustGet(t)
	if next.Holding().Token() != before+1 {
		t.Errorf("granted at %d, the last revision before was %d", next.Holding().Token(), before)
	}
}
