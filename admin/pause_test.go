package admin_test

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
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
)

var pausing = admin.Pausing{By: "ops", Host: "host-c", Reason: "move the data"}

// A result is what Pause has returned.
type result struct {
	admin.PauseEntry
	err error
}

// pause pauses a lock meanwhile.
func pause(ctx context.Context, client *clientv3.Client, key string, length time.Duration) <-chan result {
	return pauseTelling(ctx, client, key, length, nil)
}

func pauseTelling(ctx context.Context, client *clientv3.Client, key string, length time.Duration, tell func(admin.PauseEntry, error)) <-chan result {
	done := make(chan result, 1)
	go func() {
		p, err := admin.Pause(ctx, client, key, length, pausing, tell)
		done <- result{p, err}
	}()
	return done
}

// pauseThatWaits waits until a pause stands in line.
func pauseThatWaits(t *testing.T, client *clientv3.Client, key string) (p admin.PauseEntry) {
	t.Helper()
	etcdtest.Await(t, "the place of a pause", func(ctx context.Context) error {
		all, err := admin.Pauses(ctx, client, key)
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%+v, %v", all, err)
		}
		p = all[0]
		return nil
	})
	return p
}

// isOver checks that nothing is left of a pause, nor its lease.
func isOver(t *testing.T, client *clientv3.Client, p admin.PauseEntry) {
	t.Helper()
	if all, err := admin.Pauses(etcdtest.Context(t), client, p.Lock); err != nil || len(all) > 0 {
		t.Errorf("pauses that are left: %+v, %v", all, err)
	}
	if left, err := client.TimeToLive(etcdtest.Context(t), p.Lease); err != nil || left.TTL >= 0 {
		t.Errorf("its lease is left: %+v, %v", left, err)
	}
}

// TestPause: it waits for whoever came before, and keeps out whoever comes later, in all modes and
// etcd's Mutex, until it is ended.
func TestPause(t *testing.T) {
	const length = time.Hour
	for name, how := range map[string]etcdlock.Mode{"exclusive": etcdlock.Exclusive, "shared": etcdlock.Shared, "slots": etcdlock.Slots(2), "etcd": etcdlock.Exclusive} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, ctx, key := s.Client(t), etcdtest.Context(t), "/pause/"+name
			var release func(context.Context) error
			if name == "etcd" {
				first := mutex(t, client, key)
				release = func(context.Context) error { return first.Close() }
			} else {
				first := lockOf(t, client, key, "first", how)
				lockNow(t, first)
				release = first.Unlock
			}
			done := pause(ctx, client, key, length)
			waits := pauseThatWaits(t, client, key)
			if waits.Reason != pausing.Reason || waits.At.IsZero() || !waits.Until.IsZero() {
				t.Errorf("it waits as %+v", waits)
			}
			later := lockIn(t, newSession(t, client), key, "later", how)
			behind := mutex(t, client, key)
			ahead := look(t, client, key)
			if w := ahead.Waiters[0]; ahead.State != admin.Held || w.Kind != admin.ByPause || w.Nonce != waits.Token || w.Pause == nil || *w.Pause != waits.Pausing ||
				w.ID != "pause by ops@host-c" || !w.Joined.Equal(waits.At) || len(done) > 0 {
				t.Errorf("while it waits: %+v", ahead)
			}
			before := time.Now()
			if err := release(ctx); err != nil {
				t.Fatal(err)
			}
			p := <-done
			if p.err != nil || p.Token != waits.Token || p.Until.Before(before.Add(length)) || p.Until.After(time.Now().Add(length)) {
				t.Fatalf("%+v", p)
			}
			line := look(t, client, key)
			h := line.Holders[0]
			if got, want := sketch(line), fmt.Sprintf("paused exclusive pause:pause by ops@host-c <library:later%s <etcd:etcd (lease %x)", ahead.Waiters[1].Mode, behind.Lease()); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if h.Pause == nil || !h.Pause.Until.Equal(p.Until) || h.Nonce != p.Token || h.TTL != length || !h.Acquired.Equal(p.Until.Add(-length)) || h.User != "ops" || h.Host != "host-c" || len(later) > 0 {
				t.Errorf("%+v", h)
			}
			if _, err := admin.Resume(ctx, client, key, p.Token-1); !errors.Is(err, admin.ErrNotPaused) || len(later) > 0 {
				t.Errorf("with another token: %v", err)
			}
			if _, err := admin.Resume(ctx, client, key, p.Token); err != nil {
				t.Fatal(err)
			}
			<-later
			isOver(t, client, p.PauseEntry)
			if _, err := admin.Resume(ctx, client, key, p.Token); !errors.Is(err, admin.ErrNotPaused) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// TestPauseIsNotBroken: neither a break nor force ends a pause, as Resume does that.
func TestPauseIsNotBroken(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	p := <-pause(ctx, client, "/k", time.Hour)
	if p.err != nil {
		t.Fatal(p.err)
	}
	if _, err := admin.Break(ctx, client, "/k", p.Token, by); !errors.Is(err, admin.ErrPaused) {
		t.Errorf("a break: %v", err)
	}
	for _, evenIfAlive := range []bool{false, true} {
		if _, err := admin.Force(ctx, client, "/k", p.Token, evenIfAlive); !errors.Is(err, admin.ErrPaused) {
			t.Errorf("by force: %v", err)
		}
	}
	if target := only(t, client, "/k"); target.Pause == nil || target.Token != p.Token || target.Obeys {
		t.Errorf("%+v", target)
	}
}

// TestPauseTwice: a second pause is refused while one is there, or waits, and leaves nothing. The
// error names the first one.
func TestPauseTwice(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := lockOf(t, client, "/k", "holder", etcdlock.Exclusive)
	lockNow(t, holder)
	first := pause(ctx, client, "/k", time.Hour)
	waits := pauseThatWaits(t, client, "/k")
	refused := func(says string) {
		t.Helper()
		before := look(t, client, "/k").Revision
		other, err := admin.Pause(ctx, client, "/k", time.Hour, pausing, nil)
		if !errors.Is(err, admin.ErrPaused) || !strings.Contains(err.Error(), says) || other.Token != waits.Token {
			t.Errorf("a second one: %+v, %v, want %q", other, err, says)
		}
		if after := look(t, client, "/k").Revision; after != before {
			t.Errorf("it has written something: revision %d, not %d", after, before)
		}
	}
	refused(fmt.Sprintf(`by ops@host-c: "move the data" (token %d)`, waits.Token))
	if err := holder.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	p := <-first
	if p.err != nil {
		t.Fatal(p.err)
	}
	refused(fmt.Sprintf(`by ops@host-c until %s: "move the data"`, p.Until.Local().Format(time.DateTime)))
}

// TestPausesAtOnce: of two that join at the same moment the first one stays.
func TestPausesAtOnce(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && kind.Of(txn) == "Pause" {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	second := pause(ctx, gated, "/k", time.Hour)
	held := gate.AwaitHeld(t) // it has seen that nobody is there
	gate.Intercept(nil)
	first := <-pause(ctx, client, "/k", time.Hour)
	if err := held.Release(); err != nil || first.err != nil {
		t.Fatal(err, first.err)
	}
	if p := <-second; !errors.Is(p.err, admin.ErrPaused) || errors.Is(p.err, admin.ErrUnknownOutcome) {
		t.Errorf("the second one: %+v", p)
	}
	if now := pauseThatWaits(t, client, "/k"); now.Token != first.Token {
		t.Errorf("%+v is left, not %+v", now, first)
	}
}

// TestPauseEnds: it ends by itself when its length has passed, and the next one gets the lock.
func TestPauseEnds(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	p := <-pause(ctx, client, "/k", time.Second)
	if p.err != nil {
		t.Fatal(p.err)
	}
	<-lockIn(t, newSession(t, client), "/k", "next", etcdlock.Exclusive)
	if now := time.Now(); now.Before(p.Until) {
		t.Errorf("it was over at %v, before %v", now, p.Until)
	}
	isOver(t, client, p.PauseEntry)
}

// TestPauseRenews: its length counts from when it has its turn: the lease is renewed while it
// waits, and when the turn has come.
func TestPauseRenews(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	count, renewals := etcdtest.Counting("LeaseKeepAlive")
	gate.Intercept(count)
	if p := <-pause(ctx, gated, "/free", time.Hour); p.err != nil || renewals.Load() == 0 {
		t.Errorf("%d renewals of one that had its turn at once: %+v", renewals.Load(), p)
	}
	lockNow(t, lockOf(t, client, "/k", "holder", etcdlock.Exclusive))
	ctx, cancel := context.WithCancel(ctx)
	done := pause(ctx, gated, "/k", 6*time.Second)
	lease, least := pauseThatWaits(t, client, "/k").Lease, int64(6)
	etcdtest.Await(t, "a renewal", func(ctx context.Context) error {
		is, err := client.TimeToLive(ctx, lease)
		if err == nil && is.TTL > least {
			return nil
		}
		least = min(least, is.TTL)
		return fmt.Errorf("%+v, %v", is, err)
	})
	cancel()
	<-done
}

// TestPauseGivenUp: whoever gives up leaves nothing, and so does one whose pause is ended while it
// waits.
func TestPauseGivenUp(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := lockOf(t, client, "/k", "holder", etcdlock.Exclusive)
	lockNow(t, holder)
	why := errors.New("a key was pressed")
	given, cancel := context.WithCancelCause(ctx)
	done := pause(given, client, "/k", time.Hour)
	waits := pauseThatWaits(t, client, "/k")
	cancel(why)
	if p := <-done; !errors.Is(p.err, why) || errors.Is(p.err, admin.ErrUnknownOutcome) {
		t.Errorf("given up: %+v", p)
	}
	isOver(t, client, waits)

	gate, gated := s.Gated(t) // given up while it looks for others
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if read, ok := message.(*pb.RangeRequest); ok && read.KeysOnly {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	given, cancel = context.WithCancelCause(ctx)
	done = pause(given, gated, "/k", time.Hour)
	gate.AwaitHeld(t)
	cancel(why)
	if p := <-done; !errors.Is(p.err, why) {
		t.Errorf("given up before it joins: %+v", p)
	}

	done = pause(ctx, client, "/k", time.Hour)
	waits = pauseThatWaits(t, client, "/k")
	if _, err := admin.Resume(ctx, client, "/k", waits.Token); err != nil {
		t.Fatal(err)
	}
	if p := <-done; !errors.Is(p.err, admin.ErrResumed) {
		t.Errorf("ended: %+v", p)
	}
	isOver(t, client, waits)
}

// TestPauseInAnOutage: one that waits goes on when etcd answers again.
func TestPauseInAnOutage(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := lockOf(t, client, "/k", "holder", etcdlock.Exclusive)
	lockNow(t, holder)
	waits, failed := make(chan struct{}, 1000), 0
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if watch, ok := message.(*pb.WatchRequest); ok && strings.HasPrefix(string(watch.GetCreateRequest().GetKey()), "/k/~") {
			waits <- struct{}{}
		}
		// The client gives a read up when it has failed 100 times.
		if read, ok := message.(*pb.RangeRequest); ok && read.KeysOnly && len(waits) > 0 && failed < 120 {
			failed++
			return etcdtest.Fail
		}
		return etcdtest.Pass
	})
	done := pause(ctx, gated, "/k", time.Hour)
	etcdtest.Await(t, "it to wait for the holder", func(context.Context) error {
		if len(waits) == 0 {
			return errors.New("it does not watch its place")
		}
		return nil
	})
	if err := holder.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if p := <-done; p.err != nil {
		t.Errorf("%+v", p)
	}
}

// losing returns a hook that loses the first answers to transactions of a kind.
func losing(name string, n int) etcdtest.Hook {
	return func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && kind.Of(txn) == name && n > 0 {
			n--
			return etcdtest.FailApplied
		}
		return etcdtest.Pass
	}
}

// TestPauseUnanswered: a pause, its beginning and its end are made again if an answer is lost, and
// each is made once. One that is never answered leaves nothing, or says that it may have.
func TestPauseUnanswered(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for _, name := range []string{"Pause", "Break", "Resume"} {
		gate.Intercept(losing(name, 2))
		p := <-pause(ctx, gated, "/k", time.Hour)
		if p.err != nil {
			t.Fatalf("without an answer to %s: %v", name, p.err)
		}
		if now := pauseThatWaits(t, client, "/k"); now.Token != p.Token || !now.Until.Equal(p.Until) {
			t.Errorf("%s: %+v, not %+v", name, now, p)
		}
		if _, err := admin.Resume(ctx, gated, "/k", p.Token); err != nil {
			t.Errorf("resume without an answer to %s: %v", name, err)
		}
		isOver(t, client, p.PauseEntry)
	}
	for _, revokes := range []bool{true, false} {
		given, cancel := context.WithCancel(ctx)
		unanswered := losing("Pause", 1000)
		gate.Intercept(func(method string, message proto.Message) etcdtest.Verdict {
			if !revokes && strings.HasSuffix(method, "/LeaseRevoke") {
				return etcdtest.Fail
			}
			return unanswered(method, message)
		})
		done := pause(given, gated, "/k", time.Hour)
		waits := pauseThatWaits(t, client, "/k")
		cancel()
		if p := <-done; p.err == nil || errors.Is(p.err, admin.ErrUnknownOutcome) == revokes {
			t.Errorf("never answered, revoked %v: %+v", revokes, p)
		}
		if revokes {
			isOver(t, client, waits)
		} else if now := pauseThatWaits(t, client, "/k"); now.Token != waits.Token {
			t.Errorf("%+v", now)
		}
	}
}

// TestLateResume: one that comes late takes away no place but that of the pause that it names.
func TestLateResume(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	p := <-pause(ctx, client, "/k", time.Hour)
	if p.err != nil {
		t.Fatal(p.err)
	}
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && kind.Of(txn) == "Resume" {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	late := make(chan error, 1)
	go func() { _, err := admin.Resume(ctx, gated, "/k", p.Token); late <- err }()
	held := gate.AwaitHeld(t)
	gate.Intercept(nil)
	place := fmt.Sprintf("/k/%x", p.Lease)
	if _, err := client.Delete(ctx, place); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(ctx, place, p.Value(), clientv3.WithLease(p.Lease)); err != nil {
		t.Fatal(err)
	}
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-late; !errors.Is(err, admin.ErrNotPaused) {
		t.Errorf("it says %v", err)
	}
	if now := pauseThatWaits(t, client, "/k"); now.Token <= p.Token {
		t.Errorf("%+v", now)
	}
}

// TestResumeKeepsOthers: a lease on which something else hangs is not revoked, and what only looks
// like a pause is left alone.
func TestResumeKeepsOthers(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	p := <-pause(ctx, client, "/k", time.Hour)
	if p.err != nil {
		t.Fatal(p.err)
	}
	for _, key := range []string{"/k/7f", "/other", fmt.Sprintf("/k/%x-1", p.Lease)} {
		if _, err := client.Put(ctx, key, p.Value(), clientv3.WithLease(p.Lease)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Resume(ctx, client, "/k", p.Token); err != nil {
		t.Fatal(err)
	}
	if all, err := admin.Pauses(ctx, client, "/k"); err != nil || len(all) > 0 {
		t.Errorf("taken for pauses: %+v, %v", all, err)
	}
	if left := etcdtest.Keys(t, client, "/other"); len(left) != 1 {
		t.Errorf("the lease was revoked: %v", left)
	}
}

// TestPauseWaitsForAll: for a slot and a key without a place as well, and not for keys of other
// locks.
func TestPauseWaitsForAll(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for _, key := range []string{"/k/job", "/k/7f", "/k/~x", "/k/=2.x"} {
		if _, err := client.Put(ctx, key, ""); err != nil {
			t.Fatal(err)
		}
	}
	lockNow(t, lockOf(t, client, "/k/other", "other", etcdlock.Exclusive))
	gate, gated := s.Gated(t)
	for key, shows := range map[string]string{
		"/k":      "by-hand exclusive by-hand:by hand <pause:pause by ops@host-c",
		"/k/=2#1": "held slots by-hand:by hand <pause:pause by ops@host-c",
	} {
		if _, err := client.Put(ctx, key, "by hand"); err != nil {
			t.Fatal(err)
		}
		waits := make(chan struct{}, 1)
		gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
			if watch, ok := message.(*pb.WatchRequest); ok && string(watch.GetCreateRequest().GetKey()) == key {
				waits <- struct{}{}
			}
			return etcdtest.Pass
		})
		done := pause(ctx, gated, "/k", time.Hour)
		select {
		case <-waits:
		case p := <-done:
			t.Fatalf("it has not waited for %s: %+v", key, p)
		}
		if got := sketch(look(t, client, "/k")); got != shows {
			t.Errorf("while it waits for %s: %s, not %s", key, got, shows)
		}
		if _, err := client.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		p := <-done
		if p.err != nil {
			t.Fatal(p.err)
		}
		if _, err := admin.Resume(ctx, client, "/k", p.Token); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPauseTells: it tells its token when it has to wait, that etcd does not answer, and that it
// does again, each once.
func TestPauseTells(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	first, second := lockOf(t, client, "/k", "first", etcdlock.Shared), lockOf(t, client, "/k", "second", etcdlock.Shared)
	lockNow(t, first)
	lockNow(t, second)
	told := make(chan error, 100)
	var token int64
	done := pauseTelling(ctx, gated, "/k", time.Hour, func(p admin.PauseEntry, err error) { token = p.Token; told <- err })
	if err := <-told; err != nil {
		t.Errorf("while it waits: %v", err)
	}
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if read, ok := message.(*pb.RangeRequest); ok && read.KeysOnly {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	if err := second.Unlock(ctx); err != nil { // it looks again
		t.Fatal(err)
	}
	if err := <-told; err == nil {
		t.Error("that etcd is away was not told")
	}
	gate.Intercept(nil)
	if err := gate.AwaitHeld(t).Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil {
		t.Errorf("when etcd is back: %v", err)
	}
	if err := first.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if p := <-done; p.err != nil || p.Token != token {
		t.Errorf("%+v, told %d", p, token)
	}
}

// TestPauseTellsOfTheEnd: whoever was told that etcd is away is told that it is back, also if the
// pause begins then.
func TestPauseTellsOfTheEnd(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	ctx := etcdtest.Context(t)
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if _, ok := message.(*pb.LeaseGrantRequest); ok {
			return etcdtest.HoldRequest
		}
		return etcdtest.Pass
	})
	told := make(chan error, 100)
	done := pauseTelling(ctx, gated, "/k", time.Hour, func(_ admin.PauseEntry, err error) { told <- err })
	if err := <-told; err == nil {
		t.Error("that etcd is away was not told")
	}
	gate.Intercept(nil)
	if err := gate.AwaitHeld(t).Release(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil {
		t.Errorf("when etcd is back: %v", err)
	}
	if p := <-done; p.err != nil {
		t.Error(p.err)
	}
}

// TestPauseOfAClosedClient: whoever closes the client while a pause waits is not told that somebody
// has ended it.
func TestPauseOfAClosedClient(t *testing.T) {
	s := etcdtest.Start(t)
	client, closed, ctx := s.Client(t), s.Client(t), etcdtest.Context(t)
	lockNow(t, lockOf(t, client, "/k", "holder", etcdlock.Exclusive))
	told := make(chan error, 100)
	done := pauseTelling(ctx, closed, "/k", time.Minute, func(_ admin.PauseEntry, err error) { told <- err })
	<-told
	closed.Close()
	if p := <-done; p.err == nil || errors.Is(p.err, admin.ErrResumed) {
		t.Errorf("%+v", p)
	}
}

// TestPauseJoinedBefore: a try that was not answered has put the pause in line, where it stays.
func TestPauseJoinedBefore(t *testing.T) {
	s := etcdtest.Start(t)
	gate, gated := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	tries := 0
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); !ok || kind.Of(txn) != "Pause" {
			return etcdtest.Pass
		}
		if tries++; tries == 1 {
			return etcdtest.FailApplied
		}
		return etcdtest.HoldRequest
	})
	done := pause(ctx, gated, "/k", time.Hour)
	again := gate.AwaitHeld(t)
	gate.Intercept(nil)
	if _, err := client.Put(ctx, "/other", ""); err != nil { // the next revision
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
	if p := <-done; p.err != nil || p.Token != pauseThatWaits(t, client, "/k").Token {
		t.Errorf("%+v", p)
	}
}

// TestPauseIsChecked: what is wrong is refused before anything is written.
func TestPauseIsChecked(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for _, length := range []time.Duration{0, -time.Second, 1500 * time.Millisecond, admin.MostPause + time.Second} {
		if _, err := admin.Pause(ctx, client, "/k", length, pausing, nil); err == nil {
			t.Errorf("a pause of %v", length)
		}
	}
	for _, reason := range []string{"", strings.Repeat("r", admin.MostReason+1)} {
		if _, err := admin.Pause(ctx, client, "/k", time.Hour, admin.Pausing{Reason: reason}, nil); err == nil {
			t.Errorf("a reason of %d bytes", len(reason))
		}
	}
	s.Empty(t)
}
