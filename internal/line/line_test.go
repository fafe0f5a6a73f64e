package line_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// TestRead: a line has all kinds of places in it, in the order in which they came, and nothing else
// that is below K/.
func TestRead(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const key = "/line/read"
	put := func(key, value string, lease clientv3.LeaseID) {
		t.Helper()
		if _, err := client.Put(ctx, key, value, clientv3.WithLease(lease)); err != nil {
			t.Fatal(err)
		}
	}
	grant := func() clientv3.LeaseID {
		t.Helper()
		resp, err := client.Grant(ctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Revoke(etcdtest.Context(t), resp.ID) })
		return resp.ID
	}
	holder, mutex, unlinked, last, other := grant(), grant(), grant(), grant(), grant()
	entry := func(id string) string { return record.Self(id).Marshal() }
	want := []string{
		wire.LinkedPlace(key, holder, 1),
		wire.Prefix(key) + strconv.FormatInt(int64(mutex), 16),
		wire.UnlinkedPlace(key, unlinked, 1),
		wire.LinkedPlace(key, last, 1),
	}
	if _, err := client.Txn(ctx).Then(
		clientv3.OpPut(key, "holder", clientv3.WithLease(holder)),
		clientv3.OpPut(want[0], entry("holder"), clientv3.WithLease(holder)),
	).Commit(); err != nil {
		t.Fatal(err)
	}
	put(wire.Prefix(key)+"2024-10", "another lock", other)
	put(want[1], "", mutex)
	put(wire.Prefix(key)+"2025", "one more", 0)
	put(want[2], entry("unlinked"), unlinked)
	put(want[3], entry("last"), last)

	l, err := line.Read(ctx, client, key)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, kv := range l.Places {
		got = append(got, string(kv.Key))
	}
	if !slices.Equal(got, want) || l.More {
		t.Fatalf("in line are %q, want %q", got, want)
	}
	if all := l.Holders; len(all) != 1 || all[0].ID != "holder" || all[0].Record.ID != "holder" || all[0].Lease != holder || all[0].Token == 0 {
		t.Errorf("the holder is %+v", all)
	}
	if r, err := record.Parse(l.Places[2].Value); err != nil || r.ID != "unlinked" {
		t.Errorf("who may not write the tail is %+v: %v", r, err)
	}
}

// A joiner puts places for processes of this host into a line.
type joiner struct {
	t      *testing.T
	client *clientv3.Client
	key    string
}

// join puts a place, and with the same transaction what else is given: keys with their values. A
// name is made of the lease.
func (j joiner) join(pid int, name func(lease clientv3.LeaseID) string, more map[string]string) {
	j.t.Helper()
	ctx := etcdtest.Context(j.t)
	lease, err := j.client.Grant(ctx, 60)
	if err != nil {
		j.t.Fatal(err)
	}
	j.t.Cleanup(func() { j.client.Revoke(context.Background(), lease.ID) })
	r := record.Self(strconv.Itoa(pid))
	r.PID = pid
	entry := r.Marshal()
	var ops []clientv3.Op
	for key, value := range more {
		if seat, _ := wire.SlotOf(j.key, key); seat >= 0 {
			entry = record.Seated(entry, seat)
		}
		ops = append(ops, clientv3.OpPut(key, value, clientv3.WithLease(lease.ID)))
	}
	ops = append(ops, clientv3.OpPut(name(lease.ID), entry, clientv3.WithLease(lease.ID)))
	if _, err := j.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		j.t.Fatal(err)
	}
}

// stands checks where processes stand, by their numbers from 1 on: 0 is who has the lock.
func (j joiner) stands(l line.Line, want ...int) {
	j.t.Helper()
	for i, place := range want {
		if got, has := l.Stand(i + 1); got != place || has != (place == 0) {
			j.t.Errorf("%d has it: %v, or place %d, want %d", i+1, has, got, place)
		}
	}
	if place, has := l.Stand(len(want) + 1); place != 0 || has {
		j.t.Errorf("who is not there has it: %v, or place %d", has, place)
	}
}

// read reads the line, and checks who has the lock.
func (j joiner) read(want ...string) line.Line {
	j.t.Helper()
	l, err := line.Read(etcdtest.Context(j.t), j.client, j.key)
	if err != nil {
		j.t.Fatal(err)
	}
	var got []string
	for _, holder := range l.Holders {
		got = append(got, holder.ID)
		if holder.Lease == 0 || (holder.Token == 0) != l.Shared || holder.Record.ID != holder.ID {
			j.t.Errorf("a holder is %+v", holder)
		}
	}
	if !slices.Equal(got, want) {
		j.t.Errorf("%q have the lock, want %q", got, want)
	}
	return l
}

// TestStand: who shares the lock has it as long as nobody older waits for it alone, and stands
// behind nobody else who shares it.
func TestStand(t *testing.T) {
	const key = "/line/stand"
	j := joiner{t, etcdtest.Shared(t).Client(t), key}
	alone := func(lease clientv3.LeaseID) string { return wire.LinkedPlace(key, lease, 1) }
	shares := func(lease clientv3.LeaseID) string { return wire.SharedPlace(key, lease, 1) }
	for i, name := range []func(clientv3.LeaseID) string{shares, shares, alone, shares, shares, alone} {
		j.join(i+1, name, nil)
	}
	l := j.read("1", "2")
	if !l.Shared || l.Slots != 0 {
		t.Errorf("it is %+v", l)
	}
	j.stands(l, 0, 0, 1, 2, 2, 4)
}

// TestStandForASlot: who has a slot has the lock, and who has K is next. Who waits stands behind
// nobody who has a slot, or had one that was taken away.
func TestStandForASlot(t *testing.T) {
	client, key := etcdtest.Start(t).Client(t), "/line/slots"
	j := joiner{t, client, key}
	slot := func(i int) string { return wire.Slot(key, 3, i) }
	place := func(lease clientv3.LeaseID) string { return wire.SlotPlace(key, 3, lease, 1) }
	j.join(1, place, map[string]string{slot(2): "1"})
	j.join(2, place, map[string]string{slot(0): "2"})
	j.join(3, place, nil)
	j.join(4, place, nil)
	waiting := j.read("1", "2").Places[2:]
	lease := func(i int) clientv3.OpOption { return clientv3.WithLease(clientv3.LeaseID(waiting[i].Lease)) }
	if _, err := client.Txn(etcdtest.Context(t)).Then( // 3 takes a slot, and passes K to 4
		clientv3.OpPut(slot(1), "3", lease(0)),
		clientv3.OpPut(string(waiting[0].Key), record.Seated(string(waiting[0].Value), 1), lease(0)),
		clientv3.OpPut(key, "4", lease(1)),
		clientv3.OpPut(string(waiting[1].Key), string(waiting[1].Value), lease(1)),
	).Commit(); err != nil {
		t.Fatal(err)
	}
	j.join(5, place, nil)
	other := func(lease clientv3.LeaseID) string { return wire.SlotPlace(key, 30, lease, 1) }
	j.join(6, other, nil)
	l := j.read("1", "2", "3")
	if l.Slots != 3 || l.Shared {
		t.Errorf("it is %+v", l)
	}
	j.stands(l, 0, 0, 0, 1, 2, 3)

	delete := func(key string) {
		t.Helper()
		if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
			t.Fatal(err)
		}
	}
	delete(slot(0))
	l = j.read("1", "3")
	if place, has := l.Stand(2); has || l.Slots != 3 {
		t.Errorf("whose slot was deleted has it: %v, or place %d", has, place)
	}
	if place, _ := l.Stand(5); place != 2 {
		t.Errorf("place %d behind it", place)
	}

	delete(string(l.Places[2].Key))
	if l, err := line.Read(etcdtest.Context(t), client, key); err != nil || len(l.Holders) != 2 || l.Holders[1].ID != "3" || l.Holders[1].Record.ID != "" {
		t.Errorf("whose place was deleted: %+v, %v", l.Holders, err)
	} else if _, has := l.Stand(4); has {
		t.Error("who was passed K with a slot has the lock")
	}

	if _, err := client.Put(etcdtest.Context(t), key, "by hand"); err != nil {
		t.Fatal(err)
	}
	if l, err := line.Read(etcdtest.Context(t), client, key); err != nil || l.Slots != 3 || len(l.Holders) != 2 || l.Hand == nil || l.Hand.ID != "by hand" {
		t.Errorf("a key by hand: %+v, %v", l, err)
	}
}

// TestReadOfOthers: of a key that only looks like a place no value is read.
func TestReadOfOthers(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for _, key := range []string{"/others/2024-10", "/others/2025", "/others/data"} {
		if _, err := client.Put(ctx, key, strings.Repeat("x", 300<<10)); err != nil {
			t.Fatal(err)
		}
	}
	config := s.Config()
	config.MaxCallRecvMsgSize = 256 << 10
	if l, err := line.Read(ctx, etcdtest.Dial(t, config), "/others"); err != nil || len(l.Places) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestReadOfADeletedKey: who was asked to stop by hand has the lock, and a waiting line says so.
func TestReadOfADeletedKey(t *testing.T) {
	const key = "/line/deleted"
	client := etcdtest.Shared(t).Client(t)
	j := joiner{t, client, key}
	alone := func(lease clientv3.LeaseID) string { return wire.LinkedPlace(key, lease, 1) }
	j.join(1, alone, map[string]string{key: "1"})
	j.join(2, alone, nil)
	if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
		t.Fatal(err)
	}
	j.stands(j.read("1"), 0, 1)
}

// TestReadWhileAMutexGoes: a line that is read cheaply has a holder, also if a Mutex that had the
// lock goes meanwhile.
func TestReadWhileAMutexGoes(t *testing.T) {
	const key = "/line/goes"
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	j := joiner{t, client, key}
	mutex := func(lease clientv3.LeaseID) string { return wire.Prefix(key) + strconv.FormatInt(int64(lease), 16) }
	j.join(1, mutex, nil)
	j.join(2, func(lease clientv3.LeaseID) string { return wire.LinkedPlace(key, lease, 1) }, nil)
	places := etcdtest.Keys(t, client, wire.Prefix(key))
	gate, behind := s.Gated(t)
	reads := 0
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if _, is := message.(*pb.TxnRequest); is {
			if reads++; reads == 2 {
				lease := clientv3.WithLease(clientv3.LeaseID(places[1].Lease))
				_, err := client.Txn(ctx).Then(clientv3.OpDelete(string(places[0].Key)),
					clientv3.OpPut(key, "2", lease), clientv3.OpPut(string(places[1].Key), string(places[1].Value), lease)).Commit()
				if err != nil {
					t.Error(err)
				}
			}
		}
		return etcdtest.Pass
	})
	j.client = behind
	if j.read("2"); reads < 3 {
		t.Errorf("%d reads", reads)
	}
}

// TestHistoryIsReadIfNeeded: no history is needed to see that K was there before a place, nor that
// it was created with one.
func TestHistoryIsReadIfNeeded(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	count, n := etcdtest.Counting("Range")
	gate.Intercept(count)
	for name, want := range map[string]string{"put": "by hand", "overwritten": "1"} {
		key := "/old/" + name
		j := joiner{t, s.Client(t), key}
		alone := func(lease clientv3.LeaseID) string { return wire.LinkedPlace(key, lease, 1) }
		put := func() {
			if _, err := j.client.Put(etcdtest.Context(t), key, "by hand"); err != nil {
				t.Fatal(err)
			}
		}
		if name == "put" {
			put()
			j.join(1, alone, nil)
		} else {
			j.join(1, alone, map[string]string{key: "1"})
			put()
		}
		l, err := line.Read(etcdtest.Context(t), behind, key)
		if err != nil || len(l.Holders) != 1 || l.Holders[0].ID != want || n.Load() > 0 {
			t.Errorf("%s: %+v, %v, and %d reads of history", name, l.Holders, err, n.Load())
		}
	}
}

// TestOddKeys: what only looks like a place or a slot of a semaphore is nobody's.
func TestOddKeys(t *testing.T) {
	var odd []*mvccpb.KeyValue
	for i, name := range []string{"=3.abc-1", "=3#7", "=3#0", "=0#0", "~abc-1", "~sabc-1", "abc"} {
		odd = append(odd, &mvccpb.KeyValue{Key: []byte("k/" + name), CreateRevision: int64(i + 1), ModRevision: int64(i + 1)})
	}
	for n := range odd {
		l := line.Of("k", nil, odd[n:n+1])
		if len(l.Places) > 0 || len(l.Holders) > 0 && string(odd[n].Key) != "k/=3#0" {
			t.Errorf("%s: %+v", odd[n].Key, l)
		}
		line.Of("k", odd[:1], odd[n:])
	}
}
