package smalletcd_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

// must executes transactions that etcd takes.
func must(t testing.TB, s *smalletcd.Store, txns ...*pb.TxnRequest) {
	t.Helper()
	for _, txn := range txns {
		if _, err := s.Txn(txn); err != nil {
			t.Fatal(err)
		}
	}
}

// granted returns a store that has some leases.
func granted(t testing.TB, revision int64) *smalletcd.Store {
	t.Helper()
	s := smalletcd.New(revision)
	for _, lease := range leases {
		if err := s.Grant(int64(lease)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// ranked returns the key of a store with its revisions counted from the one that it began with.
func ranked(s *smalletcd.Store, start int64) string {
	return string(s.AppendKey(nil, func(revision int64) int64 { return revision - start }))
}

// TestKeyHasEverything: what a request can find out changes the key.
func TestKeyHasEverything(t *testing.T) {
	base := granted(t, 1)
	must(t, base, write(putOp("k", "v", 0)))
	seen := map[string]string{base.Key(): "nothing"}
	for name, change := range map[string]func(*smalletcd.Store){
		"a value":        func(s *smalletcd.Store) { must(t, s, write(putOp("k", "w", 0))) },
		"a version":      func(s *smalletcd.Store) { must(t, s, write(putOp("k", "v", 0))) },
		"a lease":        func(s *smalletcd.Store) { must(t, s, write(putOp("k", "v", 0x1f))) },
		"another key":    func(s *smalletcd.Store) { must(t, s, write(putOp("kv", "", 0))) },
		"a deletion":     func(s *smalletcd.Store) { must(t, s, write(deleteOp("k", ""))) },
		"a new creation": func(s *smalletcd.Store) { must(t, s, write(deleteOp("k", "")), write(putOp("k", "v", 0))) },
		"a revocation":   func(s *smalletcd.Store) { s.Expire(0x1f) },
		"a grant":        func(s *smalletcd.Store) { s.Grant(0x6f) },
		"another grant":  func(s *smalletcd.Store) { s.Grant(0x7f) },
		"a compaction":   func(s *smalletcd.Store) { s.Compact(2) },
	} {
		s := base.Clone()
		change(s)
		if other, ok := seen[s.Key()]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[s.Key()] = name
	}
}

// TestKeyWithoutHistory: what is in the key if all history is forgotten, or some is compacted.
func TestKeyWithoutHistory(t *testing.T) {
	type txns = []*pb.TxnRequest
	put := func(keys ...string) *pb.TxnRequest {
		txn := write()
		for _, key := range keys {
			txn.Success = append(txn.Success, putOp(key[:1], key[1:], 0))
		}
		return txn
	}
	forget := func(s *smalletcd.Store) { s.Forget(s.Revision() + 1) }
	forgetSome := func(s *smalletcd.Store) { s.Forget(s.Revision()) }
	compact := func(s *smalletcd.Store) { s.Compact(s.Revision()) }
	last := write(putOp("k", "", 0), deleteOp("x", ""))
	for name, one := range map[string]struct {
		a, b txns
		then func(*smalletcd.Store)
		same bool
	}{
		"what is deleted":   {txns{put("k", "x"), last}, txns{put("k", "xv"), last}, forget, true},
		"ModRevision":       {txns{put("k", "x"), put("k"), put("x")}, txns{put("k", "x"), put("x"), put("k")}, forget, false},
		"CreateRevision":    {txns{put("k"), put("x"), put("k", "x")}, txns{put("x"), put("k"), put("k", "x")}, forget, false},
		"Version":           {txns{put("k", "x"), put("k"), last}, txns{put("k", "x"), put("x"), last}, forget, false},
		"what was before":   {txns{put("kv"), last}, txns{put("kw"), last}, forgetSome, false},
		"what is compacted": {txns{put("kv"), last}, txns{put("kw"), last}, compact, true},
	} {
		var keys []string
		for _, txns := range []txns{one.a, one.b} {
			s := granted(t, 1)
			must(t, s, txns...)
			one.then(s)
			keys = append(keys, s.Key())
		}
		if same := keys[0] == keys[1]; same != one.same {
			t.Errorf("states that differ in %s have one key: %v", name, same)
		}
	}
}

// TestKeyOfRanks: states that differ only in how their revisions are numbered have one key.
func TestKeyOfRanks(t *testing.T) {
	const one, two = 100, 5000
	for range 5 {
		seed := rand.Uint64()
		a, b := newGenerator(seed, granted(t, one)), newGenerator(seed, granted(t, two))
		for i := range length {
			a.next().make(a.small)
			b.next().make(b.small)
			if ranked(a.small, one) != ranked(b.small, two) {
				t.Fatalf("seed %d, step %d: revisions counted from %d and from %d give two keys", seed, i, one, two)
			}
			if a.small.Key() == b.small.Key() {
				t.Fatalf("seed %d, step %d: the key has no revisions", seed, i)
			}
		}
	}
}

// TestRevisionsOfKey: the key asks for the rank of no revision that AppendRevisions does not name.
func TestRevisionsOfKey(t *testing.T) {
	for range 5 {
		seed := rand.Uint64()
		g := newGenerator(seed, granted(t, 100))
		for i := range length {
			g.next().make(g.small)
			named := make(map[int64]bool)
			for _, revision := range g.small.AppendRevisions(nil) {
				named[revision] = true
			}
			g.small.AppendKey(nil, func(revision int64) int64 {
				if !named[revision] {
					t.Fatalf("seed %d, step %d: revision %d is not named", seed, i, revision)
				}
				return revision
			})
		}
	}
}

// TestForget: states that differ only in forgotten history have one key, and nobody can read it.
func TestForget(t *testing.T) {
	a, b := granted(t, 1), granted(t, 1)
	must(t, a, write(putOp("k", "v", 0)), write(putOp("x", "", 0)), write(deleteOp("k", "")))
	must(t, b, write(putOp("x", "", 0)), write(putOp("y", "", 0)), write(deleteOp("y", "")))
	must(t, b, write(deleteOp("x", "")))
	must(t, a, write(deleteOp("x", "")))
	for _, s := range []*smalletcd.Store{a, b} {
		must(t, s, write(putOp("z", "", 0)))
	}
	if a.Key() == b.Key() {
		t.Fatal("the key has no history")
	}
	a.Forget(a.Revision())
	b.Forget(b.Revision())
	if a.Key() != b.Key() {
		t.Error("the key has forgotten history")
	}
	resp, err := a.Txn(wire.HistoryRead("k", "k/~1f-1", a.Revision()))
	if err != nil || wire.Got(resp, 2) != nil {
		t.Errorf("the revision before what is kept is read as %v, %v", resp, err)
	}
	if events, err := a.Events(a.Revision(), []byte("z"), nil); err != nil || len(events) != 1 {
		t.Errorf("%v are told of the revision that is kept, %v", events, err)
	}
	panics(t, "a read of forgotten history", func() { a.Txn(wire.HistoryRead("k", "k/~1f-1", a.Revision()-1)) })
	panics(t, "a watch of forgotten history", func() { a.Events(a.Revision()-1, []byte("k"), nil) })
}

func panics(t *testing.T, what string, do func()) {
	t.Helper()
	defer func() {
		if why, _ := recover().(string); !strings.HasPrefix(why, "smalletcd: ") {
			t.Errorf("%s ends with the panic %q", what, why)
		}
	}()
	do()
}

// TestWithoutVersions: how often a key was written is neither in the key nor to be found out.
func TestWithoutVersions(t *testing.T) {
	stores := []*smalletcd.Store{granted(t, 1).WithoutVersions(), granted(t, 1).WithoutVersions()}
	for i, s := range stores {
		must(t, s, write(putOp("k", "", 0)), write(putOp([]string{"k", "x"}[i], "", 0)))
		must(t, s, write(putOp("k", "", 0), putOp("x", "", 0)), write(deleteOp("x", "")))
		s.Forget(s.Revision() + 1)
	}
	if stores[0].Key() != stores[1].Key() {
		t.Error("the key has versions")
	}
	compare := &pb.Compare{Key: []byte("k"), Target: pb.Compare_VERSION}
	panics(t, "a comparison", func() { stores[0].Txn(&pb.TxnRequest{Compare: []*pb.Compare{compare}}) })
	sorted := &pb.RangeRequest{Key: []byte("k"), SortTarget: pb.RangeRequest_VERSION}
	panics(t, "a sort", func() { stores[0].Txn(write(rangeOp(sorted))) })
	s := granted(t, 1).WithoutVersions()
	for range 10 {
		must(t, s, write(putOp("x", "", 0)))
	}
	for _, sample := range kind.Samples() { // none of them asks for versions
		must(t, s.Clone(), sample.Txn)
	}
}

// TestClone: what is written to a store changes no clone of it, and the other way around.
func TestClone(t *testing.T) {
	for range 5 {
		seed := rand.Uint64()
		g := newGenerator(seed, granted(t, 100))
		for i := range length {
			clone := g.small.Clone()
			if before := clone.Key(); before != g.small.Key() {
				t.Fatalf("seed %d, step %d: a clone has another key", seed, i)
			}
			for _, pair := range [][2]*smalletcd.Store{{g.small, clone}, {clone, g.small}} {
				before := pair[1].Key()
				g.next().make(pair[0])
				if pair[1].Key() != before {
					t.Fatalf("seed %d, step %d: a write to one of two clones changed the other one", seed, i)
				}
			}
		}
	}
}

// TestShortcuts: what Get, Below and NextOf return is what requests and watches tell.
func TestShortcuts(t *testing.T) {
	s := smalletcd.New(1)
	for i, key := range []string{"a", "k/1", "k/2", "l", "k/1"} {
		if _, err := s.Txn(write(putOp(key, "v", 0))); err != nil || s.Revision() != int64(i+2) {
			t.Fatal(err, s.Revision())
		}
	}
	if _, err := s.Txn(write(deleteOp("k/2", ""))); err != nil {
		t.Fatal(err)
	}
	if s.Get("k/1").ModRevision != 6 || s.Get("k/2") != nil {
		t.Errorf("got %v and %v", s.Get("k/1"), s.Get("k/2"))
	}
	below := slices.Collect(s.Below("k/"))
	if len(below) != 1 || string(below[0].Key) != "k/1" {
		t.Errorf("below k/ is %v", below)
	}
	for from := int64(1); from <= s.Revision()+1; from++ {
		for _, key := range []string{"a", "k/1", "k/2", "z"} {
			want := int64(0)
			if events, err := s.Events(from, []byte(key), nil); err == nil && len(events) > 0 {
				want = events[0].Kv.ModRevision
			}
			if got := s.NextOf(from, key, ""); got != want {
				t.Errorf("of %s from %d on the next is %d, not %d", key, from, got, want)
			}
		}
	}
}
