package wire_test

import (
	"slices"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
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

	line, err := wire.ReadLine(ctx, client, key)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, kv := range line.Places {
		got = append(got, string(kv.Key))
	}
	if !slices.Equal(got, want) || line.More {
		t.Fatalf("in line are %q, want %q", got, want)
	}
	if !line.Held || line.Holder != "holder" || line.Record.ID != "holder" {
		t.Errorf("the holder is %q, %+v", line.Holder, line.Record)
	}
	if r, err := wire.ParseRecord(line.Places[2].Value); err != nil || r.ID != "unlinked" {
		t.Errorf("who may not write the tail is %+v: %v", r, err)
	}
}
