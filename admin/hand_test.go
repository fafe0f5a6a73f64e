package admin_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	v3lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// operate does what an operator does by hand.
func operate(t *testing.T, client *clientv3.Client, ops ...clientv3.Op) (revision int64) {
	t.Helper()
	resp, err := client.Txn(etcdtest.Context(t)).Then(ops...).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// byHand are the ways to ask the holder of a lock to stop by hand.
var byHand = map[string]func(t *testing.T, client *clientv3.Client, key string){
	"deleted": func(t *testing.T, client *clientv3.Client, key string) {
		operate(t, client, clientv3.OpDelete(key))
	},
	"overwritten": func(t *testing.T, client *clientv3.Client, key string) {
		operate(t, client, clientv3.OpPut(key, "ops"))
	},
	"overwritten, with its lease": func(t *testing.T, client *clientv3.Client, key string) {
		operate(t, client, clientv3.OpPut(key, "ops", clientv3.WithIgnoreLease()))
	},
	"overwritten, meant for another one": func(t *testing.T, client *clientv3.Client, key string) {
		operate(t, client, clientv3.OpPut(key, "ops"))
		operate(t, client, clientv3.OpPut(key, `{"break":{"token":1},"id":"ops"}`))
	},
	"deleted, and put": func(t *testing.T, client *clientv3.Client, key string) {
		operate(t, client, clientv3.OpDelete(key))
		operate(t, client, clientv3.OpPut(key, "ops"))
	},
	"deleted, and forgotten when it came": func(t *testing.T, client *clientv3.Client, key string) {
		before := operate(t, client, clientv3.OpPut("/other", ""))
		operate(t, client, clientv3.OpDelete(key))
		if _, err := client.Compact(etcdtest.Context(t), before); err != nil {
			t.Fatal(err)
		}
	},
}

// TestAskedByHand: who was asked to stop by hand has the lock until it has given it back, however
// it got that, and is the one whom break and force find.
func TestAskedByHand(t *testing.T) {
	for deed, do := range byHand {
		for _, waited := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, waited %v", deed, waited), func(t *testing.T) {
				t.Parallel()
				s := etcdtest.Start(t)
				client, ctx, session := s.Client(t), etcdtest.Context(t), newSession(t, s.Client(t))
				var got <-chan *etcdlock.Held
				if waited {
					first := lockOf(t, client, "/hand", "first", etcdlock.Exclusive)
					lockNow(t, first)
					got = lockIn(t, session, "/hand", "holder", etcdlock.Exclusive)
					if err := first.Unlock(ctx); err != nil {
						t.Fatal(err)
					}
				} else {
					got = lockIn(t, session, "/hand", "holder", etcdlock.Exclusive)
				}
				held := <-got
				lockIn(t, session, "/hand", "next", etcdlock.Exclusive)
				do(t, client, "/hand")
				<-held.Context(ctx).Done()

				line := look(t, client, "/hand")
				if line.State != admin.Broken || line.Token != held.Token() || len(line.Holders) != 1 || len(line.Waiters) != 1 || line.Waiters[0].ID != "next" {
					t.Fatalf("it is %+v", line)
				}
				if h := line.Holders[0]; h.ID != "holder" || !h.ByHand || h.Broken != nil || h.Lease != fmt.Sprintf("%x", held.Lease()) || h.TTL != ttl {
					t.Errorf("the holder is %+v", h)
				}
				if isPut := deed == "deleted, and put"; (line.Hand != nil) != isPut || isPut && line.Hand.ID != "ops" {
					t.Errorf("the key is %+v", line.Hand)
				}
				was := etcdtest.Keys(t, client, "/hand")
				target, err := admin.Break(ctx, client, "/hand", held.Token(), by)
				if err != nil || !target.ByHand || target.ID != "holder" || len(etcdtest.Keys(t, client, "/hand")) != len(was) {
					t.Errorf("asked once more: %+v, %v", target, err)
				}
				if _, err := admin.Force(ctx, client, "/hand", held.Token(), true); err != nil {
					t.Fatal(err)
				}
				etcdtest.Await(t, "it to be gone", func(context.Context) error {
					if line := look(t, client, "/hand"); line.Token == held.Token() {
						return fmt.Errorf("%+v", line)
					}
					return nil
				})
			})
		}
	}
}

// TestNotAskedByHand: who is about to get a lock has not had it, whatever became of K.
func TestNotAskedByHand(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	grant := granted(t, client)
	lease := clientv3.WithLease(grant.ID)
	place := func(key string) clientv3.Op {
		return clientv3.OpPut(fmt.Sprintf("%s/~%x-2", key, grant.ID), `{"v":1,"id":"next"}`, lease)
	}
	for _, key := range []string{"/released", "/put", "/stays"} {
		operate(t, client, clientv3.OpPut(key, "before", lease))
		operate(t, client, place(key))
		if key != "/stays" {
			operate(t, client, clientv3.OpDelete(key))
		}
		if key != "/released" {
			operate(t, client, clientv3.OpPut(key, "ops"))
		}
	}
	for key, want := range map[string]string{
		"/released": "passing exclusive <library:next",
		"/put":      "by-hand exclusive by-hand:ops <library:next",
		"/stays":    "by-hand exclusive by-hand:ops <library:next",
	} {
		if got := sketch(look(t, client, key)); got != want {
			t.Errorf("%s: %s, not %s", key, got, want)
		}
	}
	operate(t, client, clientv3.OpPut("/alone", "ops"))
	if got := sketch(look(t, client, "/alone")); got != "by-hand exclusive by-hand:ops" {
		t.Errorf("nobody waits: %s", got)
	}
}

// TestBesideByHand: a key that somebody has put keeps others out, and hides nobody who has the lock
// without it. What makes such a holder may be overwritten as well.
func TestBesideByHand(t *testing.T) {
	s := etcdtest.Start(t)
	client, session := s.Client(t), newSession(t, s.Client(t))
	for mode, how := range map[string]etcdlock.Mode{"shared": etcdlock.Shared, "slots": etcdlock.Slots(2)} {
		key := "/beside/" + mode
		lockIn(t, session, key, "a", how)
		lockIn(t, session, key, "b", how)
		operate(t, client, clientv3.OpPut(key, "ops"))
		lockIn(t, session, key, "c", how)
		line := look(t, client, key)
		if got, want := sketch(line), fmt.Sprintf("held %s library:a library:b <library:c", mode); !strings.HasPrefix(got, want) || line.Hand == nil || line.Hand.ID != "ops" || line.Hand.Kind != admin.Hand {
			t.Fatalf("%s, not %s, and the key is %+v", got, want, line.Hand)
		}
		all, err := admin.Targets(etcdtest.Context(t), client, key)
		if err != nil || len(all) != 3 || all[2].ID != "ops" || all[2].Obeys {
			t.Errorf("%+v, %v", all, err)
		}
		operate(t, client, clientv3.OpPut(makes(t, client, key, line.Holders[1].Nonce), "ops", clientv3.WithIgnoreLease()))
		if line := look(t, client, key); line.State != admin.Broken || len(line.Holders) != 2 || line.Holders[0].ByHand || !line.Holders[1].ByHand {
			t.Errorf("one is overwritten: %+v", line)
		}
		operate(t, client, clientv3.OpDelete(key))
	}
	first := mutex(t, client, "/beside/etcd")
	operate(t, client, clientv3.OpPut("/beside/etcd", "data"))
	lockIn(t, session, "/beside/etcd", "b", etcdlock.Exclusive)
	line := look(t, client, "/beside/etcd")
	if got, want := sketch(line), fmt.Sprintf("held exclusive etcd:etcd (lease %x) <library:b", first.Lease()); got != want || line.Hand == nil {
		t.Errorf("%s, not %s, and the key is %+v", got, want, line.Hand)
	}
	operate(t, client, clientv3.OpDelete("/beside/etcd"))
}

// makes returns the key that was created in a revision below a lock's, and makes somebody a holder:
// a slot, if there is one.
func makes(t *testing.T, client *clientv3.Client, lock string, created int64) (key string) {
	t.Helper()
	for _, kv := range etcdtest.Keys(t, client, lock+"/") {
		if kv.CreateRevision == created && (key == "" || strings.Contains(string(kv.Key), "#")) {
			key = string(kv.Key)
		}
	}
	return key
}

// TestIDLikeABreak: an id can be anything, and hides no holder from break.
func TestIDLikeABreak(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const id = `{"break":{"by":"b","host":"h","reason":"r","at":"2026-11-29T03:00:01Z","token":1},"id":"x"}`
	for mode, how := range map[string]etcdlock.Mode{"exclusive": etcdlock.Exclusive, "shared": etcdlock.Shared, "slots": etcdlock.Slots(2)} {
		key := "/like/" + mode
		held := lockNow(t, lockOf(t, client, key, id, how))
		if line := look(t, client, key); line.State != admin.Held || line.Holders[0].ID != id {
			t.Errorf("%s: %+v", mode, line)
		}
		target := only(t, client, key)
		if target.Broken != nil || target.ByHand || how != etcdlock.Shared && target.Token != held.Token() {
			t.Fatalf("%s: %+v", mode, target)
		}
		if _, err := admin.Break(ctx, client, key, target.Token, by); err != nil {
			t.Fatal(err)
		}
		<-held.Context(ctx).Done()
		if line := look(t, client, key); line.State != admin.Broken || line.Holders[0].ID != id || line.Holders[0].Broken.Reason != by.Reason {
			t.Errorf("%s, broken: %+v", mode, line)
		}
	}
}

// TestManyHolders: break finds each of many holders, and the one behind which many Mutexes stand.
func TestManyHolders(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	grant := granted(t, client)
	const sharers, mutexes = 1100, 70
	for i := range sharers {
		operate(t, client, clientv3.OpPut(fmt.Sprintf("/many/~s%x-%d", grant.ID, i), fmt.Sprintf(`{"v":1,"id":"s%d"}`, i), clientv3.WithLease(grant.ID)))
	}
	all, err := admin.Targets(ctx, client, "/many")
	if err != nil || len(all) != sharers || all[sharers-1].ID != fmt.Sprintf("s%d", sharers-1) {
		t.Errorf("%d share it, %v", len(all), err)
	}
	for i := range mutexes {
		each := granted(t, client)
		operate(t, client, clientv3.OpPut(fmt.Sprintf("/mutexes/%x", each.ID), "", clientv3.WithLease(each.ID)))
		if i == 0 {
			grant = each
		}
	}
	if got := only(t, client, "/mutexes"); got.Lease != grant.ID || got.Obeys {
		t.Errorf("%+v", got)
	}
}

// TestMutexGoesMeanwhile: if a Mutex that had the lock goes while it is read, the line has the next
// holder in it, and not none.
func TestMutexGoesMeanwhile(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	var leases []clientv3.LeaseID
	for range 2 {
		grant := granted(t, client)
		leases = append(leases, grant.ID)
	}
	gate, behind := s.Gated(t)
	reads := map[string]func() admin.Line{
		"/gone/list": func() admin.Line {
			for line, err := range admin.List(ctx, behind, "/gone/") {
				if err != nil {
					t.Fatal(err)
				}
				return line
			}
			return admin.Line{}
		},
		"/gone/look": func() admin.Line { return look(t, behind, "/gone/look") },
	}
	for key, read := range reads {
		first, next := fmt.Sprintf("%s/%x", key, leases[0]), clientv3.OpPut(fmt.Sprintf("%s/~%x-1", key, leases[1]), `{"v":1,"id":"next"}`, clientv3.WithLease(leases[1]))
		operate(t, client, clientv3.OpPut(first, "", clientv3.WithLease(leases[0])))
		operate(t, client, next)
		gone := false
		gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
			if _, is := message.(*pb.TxnRequest); is && !gone {
				gone = true
				_, err := client.Txn(ctx).Then(clientv3.OpDelete(first), clientv3.OpPut(key, "next", clientv3.WithLease(leases[1])), next).Commit()
				if err != nil {
					t.Error(err)
				}
			}
			return etcdtest.Pass
		})
		if got := sketch(read()); got != "held exclusive library:next" || !gone {
			t.Errorf("%s: %s", key, got)
		}
		operate(t, client, clientv3.OpDelete(key, clientv3.WithPrefix()))
	}
}

// TestV3Lock: who has a lock by etcd's own lock service, or waits for it so, shows as etcd's.
func TestV3Lock(t *testing.T) {
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	service := v3lockpb.NewLockClient(client.ActiveConnection())
	first, second := granted(t, client).ID, granted(t, client).ID
	if _, err := service.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("/v3lock/k"), Lease: int64(first)}); err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		service.Lock(waiting, &v3lockpb.LockRequest{Name: []byte("/v3lock/k"), Lease: int64(second)})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	want := fmt.Sprintf("held exclusive etcd:etcd (lease %x) <etcd:etcd (lease %x)", first, second)
	etcdtest.Await(t, "both to show", func(ctx context.Context) error {
		if got := sketch(look(t, client, "/v3lock/k")); got != want {
			return fmt.Errorf("%s, not %s", got, want)
		}
		return nil
	})
	all, _, err := admin.Locks(ctx, client, "/v3lock/")
	if err != nil || len(all) != 1 || sketch(all[0]) != want {
		t.Errorf("listed: %+v, %v", all, err)
	}
}
