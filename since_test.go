package etcdlock_test

import (
	"math"
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
	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/record"
)

// sinceKeys returns the keys that say since when a lock is held, with what they say.
func sinceKeys(t testing.TB, client *clientv3.Client, key string) (keys []string, all []record.Since) {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), key+"~", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if name := string(kv.Key); name != key+"~tail" {
			keys, all = append(keys, name), append(all, record.SinceOf(kv.Value))
		}
	}
	return keys, all
}

// TestSince: whoever holds a lock for some time says since when, in each mode and kind of session,
// and nothing of it is left after the Unlock.
func TestSince(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	session := newSession(t, client)
	for name, mode := range map[string]etcdlock.Mode{"alone": etcdlock.Exclusive, "shared": etcdlock.Shared, "slots": etcdlock.Slots(2)} {
		for _, own := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				key := "/since/" + name
				l := newLock(t, client, key, "me", mode)
				if !own {
					var err error
					key += "-session"
					if l, err = session.NewLock(key, "me"); err != nil {
						t.Fatal(err)
					}
					l.Mode = mode
				}
				before := time.Now()
				held, err := l.Lock(etcdtest.Context(t))
				if err != nil {
					t.Fatal(err)
				}
				after := time.Now()
				var all []record.Since
				await(t, "it to be said", func() (bool, any) {
					var keys []string
					keys, all = sinceKeys(t, client, key)
					return len(all) == 1, keys
				})
				if at := all[0].At; at.Before(before.Add(-time.Millisecond)) || at.After(after) {
					t.Errorf("held since %v, not between %v and %v", at, before, after)
				}
				if mode != etcdlock.Shared && all[0].Token != held.Token() {
					t.Errorf("it is said of the token %d, not of %d", all[0].Token, held.Token())
				}
				must(t)(nil, held.Unlock(etcdtest.Context(t)))
				await(t, "nothing to be left of it", func() (bool, any) {
					keys, _ := sinceKeys(t, client, key)
					return len(keys) == 0, keys
				})
			})
		}
	}
}

// TestSinceDenied: who may not say since when it holds a lock holds it all the same.
func TestSinceDenied(t *testing.T) {
	s := etcdtest.Start(t)
	l := newLock(t, etcdtest.Dial(t, newWorker(t, s, "/since-denied")), "/since-denied", "me")
	denied := make(chan struct{})
	l.Logger = onMessage("etcd was not told since when the lock is held", func() { close(denied) })
	held := mustLock(t, l)
	select {
	case <-denied:
	case <-etcdtest.Context(t).Done():
		t.Fatal("nothing was denied")
	}
	if err := held.Err(); err != nil {
		t.Errorf("the lock is lost: %v", err)
	}
	mustUnlock(t, l)
}

// TestSinceOfAnother: what a later holder says is not deleted by one that was late.
func TestSinceOfAnother(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	const key = "/since-other"
	l := newHolder(t, client, key, "me")
	await(t, "it to be said", func() (bool, any) {
		keys, _ := sinceKeys(t, client, key)
		return len(keys) == 1, keys
	})
	must(t)(client.Put(ctx, key+"~since", record.Since{Token: 1}.Marshal()))
	mustUnlock(t, l)
	if keys, _ := sinceKeys(t, client, key); len(keys) != 1 {
		t.Errorf("there are %q", keys)
	}
	must(t)(client.Delete(ctx, key+"~since"))
}

// TestSinceKeepsData: what somebody else has at the key that would say since when a lock is held
// stays.
func TestSinceKeepsData(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	gate, gated := s.Gated(t)
	asked := make(chan string, 100)
	var seen sync.Map // what is slow is asked again
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && strings.HasSuffix(kind.Of(txn), "Since") {
			if _, again := seen.LoadOrStore(txn.String(), true); !again {
				asked <- kind.Of(txn)
			}
		}
		return etcdtest.Pass
	})
	granted, err := client.Grant(ctx, 60)
	must(t)(granted, err)
	for key, data := range map[string]clientv3.Op{
		"/since-keeps/text": clientv3.OpPut("/since-keeps/text~since", "data"),
		"/since-keeps/more": clientv3.OpPut("/since-keeps/more~since", `{"token":1,"more":2}`, clientv3.WithLease(granted.ID)),
		"/since-keeps/note": clientv3.OpPut("/since-keeps/note~since", record.Since{Token: 1, At: time.Unix(1, 0).UTC()}.Marshal()),
		"/since-keeps/next": clientv3.OpPut("/since-keeps/next~since", record.Since{Token: math.MaxInt64}.Marshal(), clientv3.WithLease(granted.ID)),
	} {
		must(t)(client.Do(ctx, data))
		l := newHolder(t, gated, key, "me")
		if got := <-asked; got != "NoteSince" {
			t.Errorf("%s: %s", key, got)
		}
		mustUnlock(t, l)
		<-asked // the erasure, when the note was answered
		got, err := client.Get(ctx, key+"~since")
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != string(data.ValueBytes()) {
			t.Errorf("%s: there is %v, %v", key, got, err)
		}
	}
}

// TestSinceIsErasedAgain: a note whose erasure etcd has not answered is erased after all, while the
// lease lives on.
func TestSinceIsErasedAgain(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	client := s.Client(t)
	gate, gated := s.Gated(t)
	var failed atomic.Bool
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		txn, ok := message.(*pb.TxnRequest)
		if ok && kind.Of(txn) == "EraseSince" && failed.CompareAndSwap(false, true) {
			return etcdtest.Fail
		}
		return etcdtest.Pass
	})
	const key = "/since-erased"
	held := mustLock(t, lockIn(t, newSession(t, gated), key, "me"))
	await(t, "it to be said", func() (bool, any) {
		keys, _ := sinceKeys(t, client, key)
		return len(keys) == 1, keys
	})
	must(t)(nil, held.Unlock(etcdtest.Context(t)))
	await(t, "nothing to be left of it", func() (bool, any) {
		keys, _ := sinceKeys(t, client, key)
		return len(keys) == 0, keys
	})
	if !failed.Load() {
		t.Error("no erasure has failed")
	}
}
