package line

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/oplimit"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Numbers of a survey.
const (
	// Etcd counts the keys behind each page, so a page of few costs as much as one of many, where
	// there are a million. The first page is small: most ranges have few keys.
	firstPage, largestPage = 1000, 32_000

	atOnce = 8 // requests

	// tries is how often a line is read anew if etcd compacts what is read, or something of the
	// line has gone meanwhile.
	tries = 5
)

// A survey reads locks at one revision: names first, and then the values of those keys alone that
// can be of a lock.
type survey struct {
	client   *clientv3.Client
	revision int64
	limit    oplimit.Limit
	locks    map[string]*surveyed
	order    []string

	mu sync.Mutex // for what is read of the locks
}

// A surveyed lock is what was found of one.
type surveyed struct {
	names    []reading // below K/
	readsKey bool      // whatever is below
	k, below []*mvccpb.KeyValue
	changed  bool // something may have gone since the names were read
	line     Line
}

// A reading is one key that is read: K, or one below K/.
type reading struct {
	of    *surveyed
	key   string
	isKey bool
	lease int64 // it is read only if this is its lease; 0: in any case
}

// All returns those locks that are asked for, of which something is in a range of keys, and that
// somebody has, or waits for, in the order of their keys, and the revision of that. It reads the
// names of all keys in the range, and values of locks alone.
//
// What is of a Mutex shows by its lease, and etcd compares that of now. Where something has gone
// since the names were read, the line is read anew, in a later revision.
func All(ctx context.Context, client *clientv3.Client, isAsked func(lock string) bool, from, end string) (lines []Line, revision int64, err error) {
	s, err := surveyOf(ctx, client, isAsked, from, end, 0)
	if err != nil {
		return nil, 0, err
	}
	err = inParallel(ctx, len(s.order), func(ctx context.Context, i int) (err error) {
		if of := s.locks[s.order[i]]; of.changed && len(of.line.Places) > 0 {
			of.line, err = Whole(ctx, client, s.order[i])
		}
		return err
	})
	for _, lock := range s.order {
		if l := s.locks[lock].line; len(l.Places) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, s.revision, err
}

// surveyOf reads those locks that are asked for, as they were at a revision, or, without one, are.
func surveyOf(ctx context.Context, client *clientv3.Client, isAsked func(lock string) bool, from, end string, at int64) (s *survey, err error) {
	for range tries {
		s = &survey{client: client, revision: at, locks: make(map[string]*surveyed)}
		if err = s.read(ctx, isAsked, from, end); at > 0 || !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return s, err
}

// A Found is what there is of a lock: K, and the keys below K/ that belong to it.
type Found struct {
	Lock     string
	K, Below []*mvccpb.KeyValue
}

// Find returns what there is of those locks that are asked for, of which something is in a range of
// keys, at a revision, and that revision. At 0 means now. A Mutex that has gone since is left out.
func Find(ctx context.Context, client *clientv3.Client, isAsked func(lock string) bool, from, end string, at int64) (all []Found, revision int64, err error) {
	s, err := surveyOf(ctx, client, isAsked, from, end, at)
	if err != nil {
		return nil, 0, err
	}
	for _, lock := range s.order {
		all = append(all, Found{lock, s.locks[lock].k, s.locks[lock].below})
	}
	return all, s.revision, nil
}

// Whole returns the line for one lock, all of it. Of K it reads the value in any case.
func Whole(ctx context.Context, client *clientv3.Client, lock string) (Line, error) {
	of, err := one(ctx, client, lock, wire.Prefix(lock), clientv3.GetPrefixRangeEnd(wire.Prefix(lock)))
	return of.line, err
}

// Keys returns K and, of the keys in a range below K/, those that are of the lock, as of one
// revision.
func Keys(ctx context.Context, client *clientv3.Client, lock, from, end string) (k, below []*mvccpb.KeyValue, err error) {
	of, err := one(ctx, client, lock, from, end)
	return of.k, of.below, err
}

// one reads one lock.
func one(ctx context.Context, client *clientv3.Client, lock, from, end string) (of *surveyed, err error) {
	for range tries {
		s := &survey{client: client, locks: make(map[string]*surveyed)}
		of = s.lock(lock)
		of.readsKey = true
		err = s.read(ctx, func(of string) bool { return of == lock }, from, end)
		if err == nil && of.changed {
			err = ErrChanges
			continue
		}
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	return of, err
}

// ErrChanges says that a line was never read as a whole: each time something of it had gone.
var ErrChanges = errors.New("the line changes all the time; ask again")

// lock returns what is known of a lock, and takes note of it.
func (s *survey) lock(name string) *surveyed {
	of := s.locks[name]
	if of == nil {
		name = strings.Clone(name)
		of = new(surveyed)
		s.locks[name], s.order = of, append(s.order, name)
	}
	return of
}

// read reads the locks that are asked for and of which something is in a range of keys.
func (s *survey) read(ctx context.Context, isAsked func(lock string) bool, from, end string) error {
	if err := s.names(ctx, isAsked, from, end); err != nil {
		return err
	}
	slices.Sort(s.order)
	var now, later []reading
	for _, lock := range s.order {
		of := s.locks[lock]
		if of.readsKey {
			now = append(now, reading{of: of, key: lock, isKey: true})
		}
		now = append(now, of.names...)
	}
	if err := s.values(ctx, now); err != nil {
		return err
	}
	for _, lock := range s.order { // what only looked like a place says nothing of K
		if of := s.locks[lock]; !of.readsKey && len(wire.Places(lock, of.below)) > 0 {
			later = append(later, reading{of: of, key: lock, isKey: true})
		}
	}
	if err := s.values(ctx, later); err != nil {
		return err
	}
	return inParallel(ctx, len(s.order), func(ctx context.Context, i int) error {
		of := s.locks[s.order[i]]
		of.line = Line{Lock: s.order[i], Revision: s.revision}
		return of.line.settle(ctx, s.client, of.k, of.below)
	})
}

// names finds out by their names which keys can be of locks.
func (s *survey) names(ctx context.Context, isAsked func(lock string) bool, from, end string) error {
	for page := int64(firstPage); ; page = min(4*page, largestPage) {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(page), clientv3.WithRev(s.revision))
		if err != nil {
			return err
		}
		if s.revision == 0 {
			s.revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if lock, lease, ok := wire.LockOf(string(kv.Key)); ok && isAsked(lock) {
				s.lock(lock).name(string(kv.Key), lease)
			}
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// name takes note of a key whose name is that of a place, or of a slot.
func (of *surveyed) name(key string, lease int64) {
	of.readsKey = of.readsKey || lease == 0
	of.names = append(of.names, reading{of: of, key: key, lease: lease})
}

// values reads the values of some keys.
func (s *survey) values(ctx context.Context, some []reading) error {
	var parts [][]reading
	n := max(s.limit.OpsAtOnce()-1, 1) // one operation may be within another
	for part := range slices.Chunk(some, n) {
		parts = append(parts, part)
	}
	return inParallel(ctx, len(parts), func(ctx context.Context, i int) error { return s.part(ctx, parts[i]) })
}

// part reads some values with one transaction, or with several if etcd takes no more at once.
func (s *survey) part(ctx context.Context, some []reading) error {
	var ops []clientv3.Op
	for _, r := range some {
		get := clientv3.OpGet(r.key, clientv3.WithRev(s.revision))
		if r.lease != 0 {
			is := []clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(r.key), "=", r.lease), clientv3.Compare(clientv3.ModRevision(r.key), "<", s.revision+1)}
			get = clientv3.OpTxn(is, []clientv3.Op{get}, []clientv3.Op{clientv3.OpGet(r.key, clientv3.WithKeysOnly())})
		}
		ops = append(ops, get)
	}
	resp, err := s.client.Txn(ctx).Then(ops...).Commit()
	if s.limit.TooMany(err, len(some)+1) && len(some) > 1 {
		if err := s.part(ctx, some[:len(some)/2]); err != nil {
			return err
		}
		return s.part(ctx, some[len(some)/2:])
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range some {
		answer := resp.Responses[i]
		within := answer.GetResponseTxn()
		if within != nil {
			answer = within.Responses[0]
		}
		switch kvs := answer.GetResponseRange().GetKvs(); {
		case within != nil && !within.Succeeded: // it was no place, unless it has changed
			r.of.changed = r.of.changed || len(kvs) == 0 || kvs[0].ModRevision > s.revision
		case r.isKey:
			r.of.k = kvs
		default:
			r.of.below = append(r.of.below, kvs...)
		}
	}
	return nil
}

// inParallel does something n times, several at once, until one fails.
func inParallel(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range min(atOnce, n) {
		all.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}
