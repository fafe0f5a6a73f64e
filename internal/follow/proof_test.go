package follow

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/expiry"
)

// TestProof: a new stream must bring again what was seen last, and nothing else of a lock that was
// not told.
func TestProof(t *testing.T) {
	put := func(revision, lease int64, key string) *clientv3.Event {
		return &clientv3.Event{Kv: &mvccpb.KeyValue{Key: []byte(key), Lease: lease, CreateRevision: revision, ModRevision: revision, Version: 1}}
	}
	gone := func(revision int64, key string) *clientv3.Event {
		return &clientv3.Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: revision}}
	}
	answer := func(revision int64, events ...*clientv3.Event) clientv3.WatchResponse {
		return clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: revision}, Events: events}
	}
	taken := []*clientv3.Event{put(5, 1, "/a"), put(5, 1, "/a/~1-1")}
	other := []*clientv3.Event{put(4, 3, "/o"), put(4, 3, "/o/~3-1")}
	given := []*clientv3.Event{gone(7, "/a"), gone(7, "/a/~1-1")}
	another := []*clientv3.Event{put(7, 2, "/b"), put(7, 2, "/b/~2-1")}
	begin := func() *follower {
		f := &follower{Watch: Watch{IsAsked: func(string) bool { return true }}, began: true, revision: 3, leases: expiry.New(nil), locks: make(map[string]*lock)}
		f.yield = func(Change) bool { return true }
		for _, resp := range []clientv3.WatchResponse{answer(4, other...), answer(5, taken...), answer(6, put(6, 0, "/data")), answer(9)} {
			if err := f.hear(context.Background(), resp); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	for name, tt := range map[string]struct {
		stream []clientv3.WatchResponse
		want   error
	}{
		"the same":                {[]clientv3.WatchResponse{answer(9, taken...), answer(9, put(6, 0, "/data")), answer(9), answer(10, put(10, 0, "/data"))}, nil},
		"nothing":                 {[]clientv3.WatchResponse{answer(9)}, errHistory},
		"only what follows":       {[]clientv3.WatchResponse{answer(10, put(10, 0, "/data"))}, errHistory},
		"one key":                 {[]clientv3.WatchResponse{answer(9, taken[:1]...)}, errHistory},
		"another lease":           {[]clientv3.WatchResponse{answer(9, put(5, 3, "/a"), taken[1])}, errHistory},
		"the keys are gone":       {[]clientv3.WatchResponse{answer(9, gone(5, "/a"), gone(5, "/a/~1-1"))}, errHistory},
		"more keys are gone":      {[]clientv3.WatchResponse{answer(9, append(slices.Clone(taken), gone(5, "/o"))...)}, errHistory},
		"more is done":            {[]clientv3.WatchResponse{answer(9, append(slices.Clone(taken), put(5, 0, "/data"), gone(5, "/x"))...)}, nil},
		"another lock":            {[]clientv3.WatchResponse{answer(9, taken...), answer(9, another...)}, errHistory},
		"it is given back before": {[]clientv3.WatchResponse{answer(9, taken...), answer(9, given...)}, errHistory},
	} {
		f := begin()
		if first := f.proof.begin(f.revision); first != 5 || f.proof.isDue() {
			t.Fatalf("the next stream begins at %d", first)
		}
		var err error
		for _, resp := range tt.stream {
			if err == nil {
				err = f.hear(context.Background(), resp)
			}
		}
		if err != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := begin()
	if first := f.proof.begin(5 + mostReplayed); first != 6+mostReplayed || !f.proof.isDue() {
		t.Errorf("much later it begins at %d", first)
	}
	f.proof = proof{at: time.Now()}
	if first := f.proof.begin(f.revision); first != f.revision+1 {
		t.Errorf("after all was read it begins at %d", first)
	}
}

// TestProofOfReleases: releases alone prove nothing. A new stream begins before them.
func TestProofOfReleases(t *testing.T) {
	var p proof
	note := func(revision int64, key string, kv *mvccpb.KeyValue) {
		p.note(revision, map[string][]written{"/a": {{key, kv}}})
	}
	note(3, "/a/~1-1", new(mvccpb.KeyValue))
	note(5, "/a/~2-1", new(mvccpb.KeyValue))
	note(6, "/a/~1-1", nil)
	p.note(7, nil)
	note(8, "/a/~2-1", nil)
	var all []string
	for _, s := range p.seen {
		all = append(all, fmt.Sprint(s.revision))
	}
	if got := strings.Join(all, " "); got != "5 6 8" {
		t.Error(got)
	}
}

// TestRevisionToCome: etcd that does not know a revision which it has told of has another history.
func TestRevisionToCome(t *testing.T) {
	f := surveyor(etcdtest.Start(t).Client(t), func(c Change) bool {
		t.Errorf("told: %+v", c)
		return false
	})
	f.revision = 1 << 40
	ctx := etcdtest.Context(t)
	if err := f.meet(ctx, "/new", nil, f.revision); err != errHistory {
		t.Errorf("a lock that was not known: %v", err)
	}
	if err := f.again(ctx, f.prove(ctx)); err != errHistory {
		t.Errorf("all that is known: %v", err)
	}
}

// TestProofOfASlowReader: who takes long to read what was found is not told in time that etcd was
// restored, unless the first stream needs a proof as well.
func TestProofOfASlowReader(t *testing.T) {
	for _, slow := range []bool{false, true} {
		f := surveyor(etcdtest.Start(t).Client(t), func(c Change) bool {
			if slow && c.Kind == Began {
				time.Sleep(atOnceAfter)
			}
			return true
		})
		begun := time.Now()
		if err := f.survey(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		f.proof.begin(f.revision)
		if due := f.proof.isDue(); due != slow && (slow || time.Since(begun) < atOnceAfter) {
			t.Errorf("slow %v: a proof is due: %v", slow, due)
		}
	}
}

// TestProofOfTwoLocks: a key can be one of two locks, whose names nobody should choose.
func TestProofOfTwoLocks(t *testing.T) {
	client, ctx := etcdtest.Start(t).Client(t), etcdtest.Context(t)
	granted, err := client.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"/x", "/x/=3#0"} {
		place := fmt.Sprintf("%s/~%x-%d", key, granted.ID, i)
		mine := clientv3.WithLease(granted.ID)
		if _, err := client.Txn(ctx).Then(clientv3.OpPut(key, "me", mine), clientv3.OpPut(place, "{}", mine)).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	f := surveyor(client, func(Change) bool { return true })
	if err := f.survey(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.prove(ctx); err != nil || len(f.locks) != 2 {
		t.Errorf("%d locks: %v", len(f.locks), err)
	}
}

// surveyor returns a follower that has read nothing yet.
func surveyor(client *clientv3.Client, yield func(Change) bool) *follower {
	w := Watch{Client: client, IsAsked: func(string) bool { return true }, From: "/", End: "0"}
	return &follower{Watch: w, yield: yield, leases: expiry.New(client), locks: make(map[string]*lock)}
}
