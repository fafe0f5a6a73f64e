package smalletcd

import (
	"bytes"
	"encoding/binary"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Key returns a string that describes the state: the keys, the leases, the revisions, and the
// history that is neither compacted nor forgotten. States with one key answer all requests in the
// same way.
func (s *Store) Key() string {
	return string(s.AppendKey(nil, func(revision int64) int64 { return revision }))
}

// AppendKey appends to b what Key returns, with the rank of each revision in its place. Etcd only
// compares revisions, so if rank keeps their order, states with the same key answer requests in the
// same way, except that the revisions in requests and answers have these ranks. That holds if rank
// knows all of [Store.AppendRevisions], and all revisions that requests will have: those that
// clients remember, and the ones before and after them where clients compute these.
func (s *Store) AppendKey(b []byte, rank func(revision int64) int64) []byte {
	e := encoder{b, rank}
	e.revision(s.revision)
	e.revision(s.compacted)
	e.number(int64(len(s.leases)))
	for _, id := range s.leases {
		e.number(id)
	}
	e.number(int64(len(s.keys)))
	for _, kv := range s.keys {
		e.key(kv)
	}
	for i, c := range s.changes {
		e.key(c.kv)
		// What was before a later one is known from the change before it.
		if firstOfKey(s.changes, i) {
			e.key(s.readableBefore(c))
		}
	}
	return e.b
}

// readableBefore returns what was before a change, nil if that is nothing or compacted.
func (s *Store) readableBefore(c change) *mvccpb.KeyValue {
	if c.kv.ModRevision <= s.compacted {
		return nil
	}
	return c.before
}

// firstOfKey reports whether the i-th change is the first one of its key.
func firstOfKey(changes []change, i int) bool {
	for _, c := range changes[:i] {
		if bytes.Equal(c.kv.Key, changes[i].kv.Key) {
			return false
		}
	}
	return true
}

// AppendRevisions appends all revisions that the state has to revisions, some of them more than
// once.
func (s *Store) AppendRevisions(revisions []int64) []int64 {
	revisions = append(revisions, s.revision, s.compacted)
	for _, kv := range s.keys {
		revisions = append(revisions, kv.CreateRevision, kv.ModRevision)
	}
	for _, c := range s.changes {
		revisions = append(revisions, c.kv.ModRevision)
		if c.kv.CreateRevision != 0 {
			revisions = append(revisions, c.kv.CreateRevision)
		}
		if before := s.readableBefore(c); before != nil {
			revisions = append(revisions, before.CreateRevision, before.ModRevision)
		}
	}
	return revisions
}

// An encoder appends values so that no two lists of them look the same.
type encoder struct {
	b    []byte
	rank func(int64) int64
}

func (e *encoder) number(n int64)          { e.b = binary.AppendVarint(e.b, n) }
func (e *encoder) revision(revision int64) { e.number(e.rank(revision)) }

func (e *encoder) text(text []byte) {
	e.number(int64(len(text)))
	e.b = append(e.b, text...)
}

// The kinds of keys: absent, deleted, and there.
const (
	nothing = iota
	deleted
	there
)

func (e *encoder) key(kv *mvccpb.KeyValue) {
	switch {
	case kv == nil:
		e.number(nothing)
	case kv.CreateRevision == 0:
		e.number(deleted)
		e.text(kv.Key)
		e.revision(kv.ModRevision)
	default:
		e.number(there)
		e.text(kv.Key)
		e.text(kv.Value)
		e.revision(kv.CreateRevision)
		e.revision(kv.ModRevision)
		e.number(kv.Version)
		e.number(kv.Lease)
	}
}
