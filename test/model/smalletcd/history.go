package smalletcd

import (
	"bytes"
	"fmt"
	"slices"
	"sort"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Compact compacts the history before a revision, which can still be read itself. It returns
// rpctypes.ErrCompacted if it is compacted already up to there or further, and
// rpctypes.ErrFutureRev if the revision is newer than the current one.
func (s *Store) Compact(revision int64) error {
	switch {
	case revision <= s.compacted:
		return rpctypes.ErrCompacted
	case revision > s.revision:
		return rpctypes.ErrFutureRev
	}
	s.compacted = revision
	s.Forget(revision)
	return nil
}

// Forget drops the history before a revision. The caller knows that nobody asks for it: a request
// that does panics. Unlike a compaction it cannot be noticed otherwise. States that differ only in
// what is forgotten have the same [Store.Key].
//
// [Store.Events] still returns what happened from that revision on, and a read may name the
// revision before it, or a newer one.
func (s *Store) Forget(revision int64) {
	if revision <= s.forgotten {
		return
	}
	s.forgotten = revision
	s.changes = s.changes[s.since(revision):]
}

// since returns where the changes begin that were made in a revision or later.
func (s *Store) since(revision int64) int {
	return sort.Search(len(s.changes), func(i int) bool { return s.changes[i].kv.ModRevision >= revision })
}

// readable returns the error that the read of a revision has. Etcd takes what is not positive for
// the current one, and compares it with what is compacted all the same.
func (s *Store) readable(revision int64) error {
	switch {
	case revision == 0:
		return nil
	case revision > s.revision:
		return rpctypes.ErrFutureRev
	case revision < s.compacted:
		return rpctypes.ErrCompacted
	case revision < s.forgotten-1:
		panic(fmt.Sprintf("smalletcd: a read of revision %d, forgotten is all before %d", revision, s.forgotten))
	}
	return nil
}

// keysAt returns the keys that there were in a revision before the current one.
func (s *Store) keysAt(revision int64) []*mvccpb.KeyValue {
	kvs := append(make([]*mvccpb.KeyValue, 0, len(s.keys)+4), s.keys...)
	for _, c := range slices.Backward(s.changes) {
		if c.kv.ModRevision <= revision {
			break
		}
		i, found := find(kvs, c.kv.Key)
		switch {
		case c.before == nil:
			kvs = slices.Delete(kvs, i, i+1)
		case found:
			kvs[i] = c.before
		default:
			kvs = slices.Insert(kvs, i, c.before)
		}
	}
	return kvs
}

// Events returns the events that a watch of a range of keys delivers, from a revision up to the
// current one. Key and end are those of a watch request; etcd refuses a watch of a range without
// keys. The events of one revision follow each other in the order in which they were written. The
// ModRevision of an event's key is its revision, also if the key was deleted. From a revision after
// the current one there are no events.
//
// Events returns rpctypes.ErrCompacted where etcd cancels a watch with it. If the compacted
// revision itself has both put and deleted a key, a real watch from there may deliver the deletion
// alone.
func (s *Store) Events(from int64, key, end []byte) ([]*mvccpb.Event, error) {
	switch {
	case from < s.compacted:
		return nil, rpctypes.ErrCompacted
	case from < s.forgotten:
		panic(fmt.Sprintf("smalletcd: a watch from revision %d, forgotten is all before %d", from, s.forgotten))
	}
	var events []*mvccpb.Event
	for _, c := range s.changes[s.since(from):] {
		if !watched(c.kv.Key, key, end) {
			continue
		}
		event := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: c.kv}
		if c.kv.CreateRevision == 0 {
			event.Type = mvccpb.Event_DELETE
		}
		events = append(events, event)
	}
	return events, nil
}

// NextOf returns the revision of the first event that [Store.Events] returns, 0 without one.
func (s *Store) NextOf(from int64, key, end string) int64 {
	if from < s.compacted || from < s.forgotten {
		return 0
	}
	for _, c := range s.changes[s.since(from):] {
		if string(c.kv.Key) == key || end != "" && string(c.kv.Key) >= key && string(c.kv.Key) < end {
			return c.kv.ModRevision
		}
	}
	return 0
}

func watched(name, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(name, key)
	case bytes.Compare(name, key) < 0:
		return false
	}
	return len(end) == 1 && end[0] == 0 || bytes.Compare(name, end) < 0
}
