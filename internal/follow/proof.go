package follow

import (
	"bytes"
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// mostReplayed is how many revisions etcd is to look through again for a proof. It reads them
	// all, also those of other keys.
	mostReplayed = 10_000

	// atOnceAfter is how long after the locks were read a stream needs no proof. In less time
	// nobody kills an etcd, restores its data from a backup, and starts it.
	atOnceAfter = 500 * time.Millisecond
)

// A proof is what shows that etcd's history is the one that was told: an etcd that was restored
// from a backup goes through the same revisions again, with other events. Each new stream begins
// with what was told last, from the last revision on that has put a key of a lock. Keys of locks
// have the ids of leases, which no other history has. Where that is too long ago, or compacted,
// what is known is compared with what etcd had at that revision.
type proof struct {
	at   time.Time // all was read after this
	seen []seen    // what the last revisions have done, from the last one on that has put a key
	due  []seen    // what the stream is still to bring of that
}

// What was seen of one revision: the keys of locks.
type seen struct {
	revision int64
	keys     map[string][]written
}

// begin returns the first revision of a new stream, if all up to a revision was told.
func (p *proof) begin(revision int64) (first int64) {
	p.due = nil
	if len(p.seen) > 0 && revision-p.seen[0].revision < mostReplayed {
		p.due = p.seen
		return p.seen[0].revision
	}
	return revision + 1
}

// isDue reports whether a stream that has begun will not bring a proof.
func (p *proof) isDue() bool { return len(p.due) == 0 && time.Since(p.at) > atOnceAfter }

// note takes note of what a revision has done to locks.
func (p *proof) note(revision int64, keys map[string][]written) {
	if len(keys) == 0 {
		return
	}
	for _, of := range keys {
		for _, w := range of {
			if w.kv != nil {
				p.seen = nil
			}
		}
	}
	p.seen = append(p.seen, seen{revision, keys})
}

// isMissing reports whether the stream should have brought something that it has not, if it has
// brought all up to a revision.
func (p *proof) isMissing(revision int64) bool {
	return len(p.due) > 0 && p.due[0].revision <= revision
}

// compare compares events with what is due, and reports whether the revision was seen, and whether
// nothing is wrong. Keys are those of locks among them: another history may do as much and more.
func (p *proof) compare(revision int64, events []*clientv3.Event, keys map[string][]written) (isSeen, ok bool) {
	if !p.isMissing(revision) {
		return false, true
	}
	was := p.due[0]
	p.due = p.due[1:]
	is, told := make(map[string]*clientv3.Event), make(map[string]bool)
	for _, e := range events {
		is[string(e.Kv.Key)] = e
	}
	for _, of := range was.keys {
		for _, w := range of {
			e := is[w.key]
			if e == nil || (w.kv == nil) != (e.Type == mvccpb.Event_DELETE) || w.kv != nil && !isSameKey(w.kv, e.Kv) {
				return true, false
			}
			told[w.key] = true
		}
	}
	for _, of := range keys {
		for _, w := range of {
			if !told[w.key] {
				return true, false
			}
		}
	}
	return true, was.revision == revision
}

func isSameKey(a, b *mvccpb.KeyValue) bool {
	return a != nil && a.CreateRevision == b.CreateRevision && a.ModRevision == b.ModRevision && a.Version == b.Version &&
		a.Lease == b.Lease && bytes.Equal(a.Value, b.Value)
}

func errUnless(ok bool) error {
	if !ok {
		return errHistory
	}
	return nil
}

// prove compares what is known with what etcd had at that revision.
func (f *follower) prove(ctx context.Context) error {
	all, _, err := f.find(ctx, f.revision)
	if err != nil {
		return err
	}
	known, there := make(part), make(part) // a key can be of two locks
	for _, l := range f.locks {
		known.addAll(l)
	}
	for _, of := range all {
		l := newLock(of.Lock)
		for _, kv := range of.Below {
			l.set(string(kv.Key), kv)
		}
		if len(of.K) > 0 {
			l.key = of.K[0]
		}
		if len(l.names()) > 0 {
			there.addAll(l)
		}
	}
	for key, kv := range there {
		if !isSameKey(known[key], kv) {
			return errHistory
		}
		delete(known, key)
	}
	for key, kv := range known { // a Mutex that has gone since is not found
		resp, err := f.get(ctx, key, clientv3.WithRev(f.revision))
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 || !isSameKey(kv, resp.Kvs[0]) {
			return errHistory
		}
	}
	return nil
}
