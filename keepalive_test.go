package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestLoginsOfAClient: the leases of a client are renewed on one stream, whose login costs etcd
// more than they do.
func TestLoginsOfAClient(t *testing.T) {
	s := etcdtest.Start(t)
	worker := newWorker(t, s, "/login")
	gate := etcdtest.NewGate(t, s.Endpoint())
	count, logins := etcdtest.Counting("Authenticate")
	gate.Intercept(count)
	client := gate.Dial(t, worker)
	const locks, times = 10, 5
	for i := range locks {
		l := newLock(t, client, fmt.Sprintf("/login/%d", i), "me")
		l.Session().RefreshInterval = 50 * time.Millisecond
		held := mustLock(t, l)
		defer func() {
			awaitRenewals(t, l, held, times)
			// Its dial, its watches, its renewals, and a few more on a machine that stands still.
			if n := logins.Load(); n > locks {
				t.Errorf("%d logins for %d renewals at least", n, locks*times)
			}
		}()
	}
}

// TestSilentStream: when the stream on which leases are renewed falls silent, another one does it.
func TestSilentStream(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	l := newLock(t, behind, "/silent-stream", "me")
	l.Session().RefreshInterval = 50 * time.Millisecond
	held := mustLock(t, l)
	awaitRenewals(t, l, held, 2)
	var silenced atomic.Bool
	gate.InterceptAnswers(func(_ string, message proto.Message) etcdtest.Verdict {
		if _, ok := message.(*pb.LeaseKeepAliveResponse); ok && silenced.CompareAndSwap(false, true) {
			return etcdtest.HoldAnswer // and all that come behind it
		}
		return etcdtest.Pass
	})
	late := gate.AwaitHeld(t)
	awaitRenewals(t, l, held, 3)
	late.Release()
	awaitRenewals(t, l, held, 3)
}

// TestStreamThatEnds: a stream that etcd ends, as a member does that is stopped, is opened again
// for those who wait for an answer.
func TestStreamThatEnds(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	l := newLock(t, behind, "/stream-ends", "me")
	l.Session().RefreshInterval = 50 * time.Millisecond
	held := mustLock(t, l)
	failed := intercept(gate, 5, etcdtest.Fail, "renew")
	await(t, "the stream to end five times", func() (bool, any) { return len(failed) == 5, len(failed) })
	awaitRenewals(t, l, held, 3)
}

// TestSlowRenewals: an etcd that is slow, and answers, renews leases, also where a lock of the same
// client would not wait for so long.
func TestSlowRenewals(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	l := newLock(t, behind, "/slow", "me")
	l.Session().TTL, l.Session().RefreshInterval = 20*time.Second, 500*time.Millisecond
	held := mustLock(t, l)
	impatient := newLock(t, behind, "/impatient", "me")
	impatient.Session().TTL = 2 * time.Second
	mustLock(t, impatient)
	if err := errors.Join(impatient.Holding().Refresh(etcdtest.Context(t)), impatient.Close(etcdtest.Context(t))); err != nil {
		t.Fatal(err)
	}
	link.Delay(200 * time.Millisecond)
	awaitRenewals(t, l, held, 4)
}

// TestClientContextEnds: a program that is told to stop may end the context that its client was
// made with first, and still needs its locks while it stops.
func TestClientContextEnds(t *testing.T) {
	s := etcdtest.Start(t)
	config := s.Config()
	var cancel context.CancelFunc
	config.Context, cancel = context.WithCancel(context.Background())
	defer cancel()
	l := newLock(t, etcdtest.Dial(t, config), "/context", "me")
	l.Session().TTL, l.Session().RefreshInterval = 20*time.Second, 200*time.Millisecond
	held := mustLock(t, l)
	awaitRenewals(t, l, held, 1)
	cancel()
	awaitRenewals(t, l, held, 3)
}

// TestTokenForgotten: a renewal that etcd refuses because it does not know the token any more is
// made again with another one, and soon.
func TestTokenForgotten(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker := etcdtest.Dial(t, newWorker(t, s, "/forgotten-token"))
	root, ctx := s.Client(t), etcdtest.Context(t)
	l := newHolder(t, worker, "/forgotten-token", "me")
	held := l.Holding()
	refresh := func() time.Duration {
		began := time.Now()
		if err := held.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	refresh() // opens the stream
	// On a busy machine the check of a password may take as long as the pause that must not be.
	quickest := time.Hour
	for rounds := 0; quickest >= time.Second && rounds < 50; rounds++ {
		must(t)(root.UserChangePassword(ctx, "worker", "pass"))
		quickest = min(quickest, refresh())
	}
	if quickest >= time.Second {
		t.Errorf("a renewal takes %v at least", quickest)
	}
}

// TestRenewalDenied: etcd ends the stream of all when one lease may not be renewed. Who asks for
// that one is told, and the other leases of the client are renewed all the same.
func TestRenewalDenied(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := etcdtest.Dial(t, newWorker(t, s, "/denied"))
	root, ctx := s.Client(t), etcdtest.Context(t)
	denied, other := newLock(t, client, "/denied", "denied"), newLock(t, client, "/denied/other", "other")
	for _, l := range []*etcdlock.Lock{denied, other} {
		l.Session().TTL, l.Session().RefreshInterval = time.Minute, 50*time.Millisecond
	}
	refused, renews := mustLock(t, denied), mustLock(t, other)
	awaitRenewals(t, denied, refused, 1)
	readOnly := clientv3.PermissionType(clientv3.PermRead)
	must(t)(root.RoleGrantPermission(ctx, "worker", "/denied", "", readOnly))
	for range 3 { // a second each
		if err := refused.Refresh(ctx); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Fatalf("Refresh of a lock that may not be written: %v", err)
		}
		if err := renews.Refresh(ctx); err != nil {
			t.Fatalf("Refresh of the other one: %v", err)
		}
	}
	awaitRenewals(t, other, renews, 10)
	if refused.Err() != nil {
		t.Error(context.Cause(refused))
	}
}

// TestRenewalsDenied: leases that may not be renewed, and are asked for again and again, cost etcd
// no more than a login a second, and the other leases of the client are renewed as before.
func TestRenewalsDenied(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	worker, root := newWorker(t, s, "/good", "/bad"), s.Client(t)
	gate := etcdtest.NewGate(t, s.Endpoint())
	count, logins := etcdtest.Counting("Authenticate")
	gate.Intercept(count)
	client := gate.Dial(t, worker)
	take := func(key string) (*etcdlock.Lock, grip) {
		l := newLock(t, client, key, "me")
		l.Session().TTL, l.Session().RefreshInterval = 2*time.Minute, 50*time.Millisecond
		return l, mustLock(t, l)
	}
	const denied = 6
	for i := range denied {
		l, held := take(fmt.Sprintf("/bad/%d", i))
		awaitRenewals(t, l, held, 1)
	}
	good, held := take("/good")
	awaitRenewals(t, good, held, 1)
	readOnly := clientv3.PermissionType(clientv3.PermRead)
	must(t)(root.RoleGrantPermission(etcdtest.Context(t), "worker", "/bad/", clientv3.GetPrefixRangeEnd("/bad/"), readOnly))
	began := time.Now()
	logins.Store(0)
	awaitRenewals(t, good, held, 80)
	// Each is denied once on the stream of all. A few are for a machine that stands still.
	seconds := int64(time.Since(began) / time.Second)
	if n := logins.Load(); n > denied+seconds+5 {
		t.Errorf("%d logins in %d seconds", n, seconds)
	}
}
