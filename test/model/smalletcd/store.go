// Package smalletcd is the content of an etcd, in memory: revisions, keys, leases and history. A
// [Store] executes the requests that are sent to a real etcd, and answers as etcd 3.7 does. Tests
// hold it against a real one.
//
// What it does not have:
//
//   - Time. A lease lasts until [Store.Revoke].
//   - Members, users and quotas. Headers have the revision alone: cluster, member and term are 0.
//   - Watch streams. [Store.Events] returns what a watch tells.
//
// A Store keeps the keys and values of requests as they are, and its answers share keys with it:
// change neither. A Store and its clones are for one goroutine.
package smalletcd

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// A Store is what etcd has in one revision, and the history that leads there.
type Store struct {
	revision    int64
	compacted   int64 // history before this revision is compacted
	forgotten   int64 // history before this revision is not kept: see Forget
	keys        []*mvccpb.KeyValue
	shared      bool // a clone has the same keys
	leases      []int64
	changes     []change
	unversioned bool // see WithoutVersions
}

// A change is one event of the history.
type change struct {
	kv     *mvccpb.KeyValue // a deletion has CreateRevision 0
	before *mvccpb.KeyValue // nil if the key was absent
}

// New returns an empty store as of a revision. What was before it is compacted. A real etcd that
// nobody has written to has revision 1.
func New(revision int64) *Store {
	return &Store{revision: revision, compacted: revision, forgotten: revision}
}

// WithoutVersions makes the store count no versions of keys, and returns it. The Version of all
// keys is 0, and a request that compares versions or sorts by them panics. States that differ only
// in how often a key was written then have the same [Store.Key]. Call it before anything is
// written.
func (s *Store) WithoutVersions() *Store {
	s.unversioned = true
	return s
}

// Clone returns a copy of the store. It copies no keys and no history: the first write to one of
// the two does.
func (s *Store) Clone() *Store {
	s.shared = true
	s.leases, s.changes = slices.Clip(s.leases), slices.Clip(s.changes)
	c := *s
	return &c
}

// Revision returns the current revision. A watch that is created now, and from no revision, tells
// what comes after it.
func (s *Store) Revision() int64 { return s.revision }

// Compacted returns the oldest revision that can be read.
func (s *Store) Compacted() int64 { return s.compacted }

// Get returns a key, nil if it is absent.
func (s *Store) Get(key string) *mvccpb.KeyValue {
	if i, found := find(s.keys, []byte(key)); found {
		return s.keys[i]
	}
	return nil
}

// Below returns the keys that begin with a prefix.
func (s *Store) Below(prefix string) iter.Seq[*mvccpb.KeyValue] {
	return func(yield func(*mvccpb.KeyValue) bool) {
		i, _ := find(s.keys, []byte(prefix))
		for ; i < len(s.keys) && strings.HasPrefix(string(s.keys[i].Key), prefix) && yield(s.keys[i]); i++ {
		}
	}
}

// find returns where among keys a key is, or would be.
func find(kvs []*mvccpb.KeyValue, key []byte) (int, bool) {
	low, high := 0, len(kvs)
	for low < high {
		middle := (low + high) / 2
		switch order := bytes.Compare(kvs[middle].Key, key); {
		case order == 0:
			return middle, true
		case order < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	return low, false
}

// within returns the indices among keys from which and up to which a range goes. Without an end the
// range is one key. If the end is a single zero byte, the range has no end.
func within(kvs []*mvccpb.KeyValue, key, end []byte) (from, to int) {
	from, found := find(kvs, key)
	switch {
	case len(end) == 0 && found:
		return from, from + 1
	case len(end) == 0:
		return from, from
	case len(end) == 1 && end[0] == 0:
		return from, len(kvs)
	}
	to, _ = find(kvs, end)
	return from, max(from, to)
}

// own makes the keys the store's own before they are written to.
func (s *Store) own() {
	if s.shared {
		s.keys, s.shared = append(make([]*mvccpb.KeyValue, 0, len(s.keys)+4), s.keys...), false
	}
}

// put writes a key in a revision. The key's revisions and its version need not be set.
func (s *Store) put(kv *mvccpb.KeyValue, revision int64) {
	s.own()
	kv.CreateRevision, kv.ModRevision, kv.Version = revision, revision, 1
	i, found := find(s.keys, kv.Key)
	if found {
		before := s.keys[i]
		kv.CreateRevision, kv.Version = before.CreateRevision, before.Version+1
		s.changes = append(s.changes, change{kv, before})
		s.keys[i] = kv
	} else {
		s.changes = append(s.changes, change{kv, nil})
		s.keys = slices.Insert(s.keys, i, kv)
	}
	if s.unversioned {
		kv.Version = 0
	}
}

// remove deletes the keys between two indices in a revision.
func (s *Store) remove(from, to int, revision int64) {
	if from == to {
		return
	}
	s.own()
	for _, kv := range s.keys[from:to] {
		s.changes = append(s.changes, change{&mvccpb.KeyValue{Key: kv.Key, ModRevision: revision}, kv})
	}
	s.keys = slices.Delete(s.keys, from, to)
}
