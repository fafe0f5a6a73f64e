package line_test

import (
	"context"
	"slices"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/line"
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
	record := func(id string) string { return wire.Self(id).Marshal() }
	want := []string{
		wire.LinkedPlace(key, holder, 1),
		wire.Prefix(key) + strconv.FormatInt(int64(mutex), 16),
		wire.UnlinkedPlace(key, unlinked, 1),
		wire.LinkedPlace(key, last, 1),
	}
	if _, err := client.Txn(ctx).Then(
		clientv3.OpPut(key, "holder", clientv3.WithLease(holder)),
		clientv3.OpPut(want[0], record("holder"), clientv3.WithLease(holder)),
	).Commit(); err != nil {
		t.Fatal(err)
	}
	put(wire.Prefix(key)+"2024-10", "another lock", other)
	put(want[1], "", mutex)
	put(wire.Prefix(key)+"2025", "one more", 0)
	put(want[2], record("unlinked"), unlinked)
	put(want[3], record("last"), last)

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
	if all := l.Holders(); !l.Held || l.Holder != "holder" || len(all) != 1 || all[0].ID != "holder" {
		t.Errorf("the holder is %q, %+v", l.Holder, all)
	}
	if r, err := wire.ParseRecord(l.Places[2].Value); err != nil || r.ID != "unlinked" {
		t.Errorf("who may not write the tail is %+v: %v", r, err)
	}
}

// TestStand: who shares the lock has it as long as nobody older waits for it alone, and stands
// behind nobody else who shares it.
func TestStand(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	const key = "/line/stand"
	join := func(pid int, name func(lease clientv3.LeaseID) string) {
		t.Helper()
		lease, err := client.Grant(ctx, 60)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Revoke(context.Background(), lease.ID) })
		r := wire.Self("me")
		r.PID = pid
		if _, err := client.Put(ctx, name(lease.ID), r.Marshal(), clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	alone := func(lease clientv3.LeaseID) string { return wire.LinkedPlace(key, lease, 1) }
	shares := func(lease clientv3.LeaseID) string { return wire.SharedPlace(key, lease, 1) }
	for i, name := range []func(clientv3.LeaseID) string{shares, shares, alone, shares, shares, alone} {
		join(i+1, name)
	}
	l, err := line.Read(ctx, client, key)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Shared) != 2 || len(l.Holders()) != 2 || len(l.Leases()) != 2 {
		t.Errorf("it is shared by %d", len(l.Shared))
	}
	for pid, want := range []int{0, 0, 0, 1, 2, 2, 4} {
		if place, has := l.Stand(pid); place != want || has != (pid == 1 || pid == 2) {
			t.Errorf("%d has it: %v, or place %d, want %d", pid, has, place, want)
		}
	}
}
