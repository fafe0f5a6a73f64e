package admin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
)

var by = admin.Request{By: "ops", Host: "host-c", Reason: "deploy 4711"}

// lockOf returns a lock that is closed in the end.
func lockOf(t *testing.T, client *clientv3.Client, key, id string, how etcdlock.Mode) *etcdlock.Lock {
	t.Helper()
	l, err := etcdlock.New(client, key, id, 60*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Mode, l.Session().ConnectTimeout = how, answered
	t.Cleanup(func() { l.Close(etcdtest.Context(t)) })
	return l
}

func lockNow(t *testing.T, l *etcdlock.Lock) *etcdlock.Held {
	t.Helper()
	held, err := l.Lock(etcdtest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// only returns the only holder of a lock.
func only(t *testing.T, client *clientv3.Client, key string) admin.Target {
	t.Helper()
	all, err := admin.Targets(etcdtest.Context(t), client, key)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

// TestBreak: the holder that is named stops, and is told who has asked it to, from where and why.
// Nobody else gets the lock before it has given that back.
func TestBreak(t *testing.T) {
	for name, how := range map[string]etcdlock.Mode{"exclusive": etcdlock.Exclusive, "shared": etcdlock.Shared, "slots": etcdlock.Slots(2)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, ctx, key := s.Client(t), etcdtest.Context(t), "/break/"+name
			holder := lockOf(t, client, key, "holder", how)
			held := lockNow(t, holder)
			work := held.Context(ctx)
			next, got := lockOf(t, client, key, "next", etcdlock.Exclusive), make(chan error, 1)
			if how == etcdlock.Slots(2) {
				got <- nil // the other slot is free
			} else {
				go func() { _, err := next.Lock(ctx); got <- err }()
			}
			target := only(t, client, key)
			if target.ID != "holder" || !target.Obeys || target.Lease != held.Lease() || target.Mode != name {
				t.Errorf("%+v", target)
			}
			if _, err := admin.Break(ctx, client, key, target.Token-1, by); !errors.Is(err, admin.ErrNotHolder) || work.Err() != nil {
				t.Fatalf("with an old token: %v, %v", err, work.Err())
			}
			for range 2 { // it may be repeated
				broken, err := admin.Break(ctx, client, key, target.Token, by)
				if err != nil || broken.Broken.Reason != by.Reason {
					t.Fatalf("%+v, %v", broken, err)
				}
			}
			<-work.Done()
			var lost *etcdlock.LostError
			var why *admin.Request
			if err := context.Cause(work); !errors.As(err, &lost) || !errors.As(err, &why) || why.Host != by.Host || lost.Reason.Forced() ||
				!strings.HasSuffix(err.Error(), `was broken by ops@host-c: "deploy 4711"`) {
				t.Errorf("it was told: %v", err)
			}
			if now := look(t, client, key); now.State != admin.Broken || now.Holders[0].ID != "holder" || now.Holders[0].Broken.Reason != by.Reason {
				t.Errorf("while broken: %+v", now)
			}
			if now := only(t, client, key); now.ID != "holder" || now.Token != target.Token || now.Broken == nil || now.Host != target.Host {
				t.Errorf("while broken it is %+v", now)
			}
			if resp, err := client.Txn(ctx).If(held.IsHolder()).Commit(); err != nil || resp.Succeeded {
				t.Errorf("it is a holder: %v, %v", resp, err)
			}
			if how != etcdlock.Slots(2) && len(got) > 0 {
				t.Errorf("the next one has it: %v", <-got)
			}
			gone := make(chan error, 1)
			go func() { gone <- target.Await(ctx, client) }()
			if err := holder.Unlock(ctx); !errors.As(err, &why) {
				t.Errorf("Unlock: %v", err)
			}
			if err := <-gone; err != nil {
				t.Error(err)
			}
			if err := <-got; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBreakUnseen: who releases a lock that was broken a moment before says so, and leaves nothing.
func TestBreakUnseen(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session, err := etcdlock.NewSession(client, 60*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(ctx)
	one, err := session.NewLock("/unseen/one", "me")
	if err != nil {
		t.Fatal(err)
	}
	other, err := session.NewLock("/unseen/other", "me")
	if err != nil {
		t.Fatal(err)
	}
	lockNow(t, one)
	work := lockNow(t, other).Context(ctx)
	if _, err := admin.Break(ctx, client, "/unseen/one", only(t, client, "/unseen/one").Token, by); err != nil {
		t.Fatal(err)
	}
	var why *admin.Request
	if err := one.Unlock(ctx); !errors.As(err, &why) {
		t.Errorf("Unlock: %v", err)
	}
	etcdtest.Await(t, "nothing to be left", func(context.Context) error {
		if left := etcdtest.Keys(t, client, "/unseen/one"); len(left) > 0 {
			return fmt.Errorf("%v", left)
		}
		return nil
	})
	if work.Err() != nil {
		t.Errorf("another lock of the session was lost: %v", context.Cause(work))
	}
}

// TestBreakWithoutSpace: that etcd has no space is an answer. Where etcd has written all the same,
// the holder is asked.
func TestBreakWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t, etcdtest.WithQuota(2<<20))
	gate, behind := s.Gated(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	applied := lockNow(t, lockOf(t, client, "/full/applied", "me", etcdlock.Exclusive))
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if txn, is := request.(*pb.TxnRequest); is && len(txn.Compare) > 0 {
			return etcdtest.NoSpaceApplied
		}
		return etcdtest.Pass
	})
	if _, err := admin.Break(ctx, behind, "/full/applied", applied.Token(), by); err != nil {
		t.Errorf("applied: %v", err)
	}
	<-applied.Context(ctx).Done()
	gate.Intercept(nil)
	refused := lockNow(t, lockOf(t, client, "/full/refused", "me", etcdlock.Exclusive))
	var err error
	for fill := strings.Repeat("x", 256<<10); err == nil; {
		_, err = client.Put(ctx, "/fill", fill)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatal(err)
	}
	if _, err := admin.Break(ctx, client, "/full/refused", refused.Token(), by); !errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, admin.ErrUnknownOutcome) {
		t.Errorf("refused: %v", err)
	}
}

// TestBreakOnceMore: who was asked, and has begun to give the lock back, need not be forced.
func TestBreakOnceMore(t *testing.T) {
	client := etcdtest.Start(t).Client(t)
	lease := granted(t, client).ID
	operate(t, client, clientv3.OpPut("/once-more", "me", clientv3.WithLease(lease)))
	token := only(t, client, "/once-more").Token
	asked := by
	asked.Token, asked.At = token, time.Now()
	operate(t, client, clientv3.OpPut("/once-more", record.BrokenValue(&asked, "me", false), clientv3.WithLease(lease)))
	if got, err := admin.Break(etcdtest.Context(t), client, "/once-more", token, by); err != nil || got.Broken == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestForce: it takes the lock from whoever does not renew, or, if that is wanted, from whoever
// does, and from a Mutex, which cannot be asked.
func TestForce(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := lockOf(t, client, "/force", "holder", etcdlock.Exclusive)
	holder.Session().RefreshInterval = time.Second
	held := lockNow(t, holder)
	token := only(t, client, "/force").Token
	if _, err := admin.Force(ctx, client, "/force", token, false); !errors.Is(err, admin.ErrAlive) || held.Context(ctx).Err() != nil {
		t.Fatalf("of one that renews: %v", err)
	}
	if _, err := admin.Force(ctx, client, "/force", token, true); err != nil {
		t.Fatal(err)
	}
	<-held.Expired()
	mutexSession, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	if err != nil {
		t.Fatal(err)
	}
	defer mutexSession.Close()
	if err := concurrency.NewMutex(mutexSession, "/mutex").Lock(ctx); err != nil {
		t.Fatal(err)
	}
	token = only(t, client, "/mutex").Token
	if _, err := admin.Break(ctx, client, "/mutex", token, by); !errors.Is(err, admin.ErrMustForce) {
		t.Errorf("asked: %v", err)
	}
	if _, err := admin.Force(ctx, client, "/mutex", token, true); err != nil || len(etcdtest.Keys(t, client, "/mutex")) > 0 {
		t.Errorf("forced: %v", err)
	}
	if _, err := admin.Force(ctx, client, "/mutex", token, true); !errors.Is(err, admin.ErrNotHolder) {
		t.Errorf("forced again: %v", err)
	}
}

// TestAwaitThePlace: whoever deletes the key that was broken has not ended its holder.
func TestAwaitThePlace(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := lockOf(t, client, "/await", "holder", etcdlock.Exclusive)
	work := lockNow(t, holder).Context(ctx)
	target, err := admin.Break(ctx, client, "/await", only(t, client, "/await").Token, by)
	if err != nil {
		t.Fatal(err)
	}
	<-work.Done()
	if _, err := client.Delete(ctx, "/await"); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := target.Await(soon, client); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while its place is there: %v", err)
	}
	holder.Close(ctx)
	if err := target.Await(ctx, client); err != nil {
		t.Error(err)
	}
}

// TestForceUnseen: a holder is not taken for silent before it had time to renew.
func TestForceUnseen(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	grant := granted(t, client)
	if _, err := client.Put(ctx, "/unseen", "me", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := admin.Force(soon, client, "/unseen", only(t, client, "/unseen").Token, false); !errors.Is(err, admin.ErrMayBeAlive) {
		t.Error(err)
	}
	if len(etcdtest.Keys(t, client, "/unseen")) != 1 {
		t.Error("it was taken all the same")
	}
}
