package admin

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/oplimit"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Numbers of a survey.
const (
	// Etcd counts the keys behind each page, so a page of few costs as much as one of many, where
	// there are a million. The first page is small: most ranges have few keys.
	firstPage, largestPage = 1000, 32_000

	atOnce = 8 // requests
)

// A survey reads locks at one revision: names first, and then the values of those keys alone that
// can be of a lock.
type survey struct {
	client   *clientv3.Client
	isAsked  func(lock string) bool
	revision int64
	limit    oplimit.Limit

	mu    sync.Mutex // for what is found of the locks
	locks map[string]*lock
	order []string
	reads []reading
}

// A lock is what was found of one.
type lock struct {
	k, below []*mvccpb.KeyValue
}

// A reading is one key that is read: K, or one below K/.
type reading struct {
	of    *lock
	key   string
	isK   bool
	lease int64 // it is read only if this is its lease; 0: in any case
}

// names finds out by their names which keys can be of locks.
func (s *survey) names(ctx context.Context, from, end string) error {
	s.locks = make(map[string]*lock)
	for page := int64(firstPage); ; page = min(4*page, largestPage) {
		resp, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(page), clientv3.WithRev(s.revision))
		if err != nil {
			return err
		}
		if s.revision == 0 {
			s.revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			s.name(string(kv.Key))
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	slices.Sort(s.order)
	return nil
}

// name takes note of a key if its name is that of a place, or of a slot.
func (s *survey) name(key string) {
	of, lease, ok := wire.LockOf(key)
	if !ok || !s.isAsked(of) {
		return
	}
	l := s.locks[of]
	if l == nil {
		l = new(lock)
		of = strings.Clone(of)
		s.locks[of], s.order = l, append(s.order, of)
		s.reads = append(s.reads, reading{of: l, key: of, isK: true})
	}
	s.reads = append(s.reads, reading{of: l, key: key, lease: lease})
}

// values reads the values of what was found.
func (s *survey) values(ctx context.Context) error {
	var parts [][]reading
	n := max(s.limit.OpsAtOnce()-1, 1) // one operation may be within another
	for part := range slices.Chunk(s.reads, n) {
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
			get = clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(r.key), "=", r.lease)}, []clientv3.Op{get}, nil)
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
		if r.isK {
			r.of.k = got(resp.Responses[i])
		} else {
			r.of.below = append(r.of.below, got(resp.Responses[i])...)
		}
	}
	return nil
}

// got returns what one operation has read.
func got(resp *pb.ResponseOp) []*mvccpb.KeyValue {
	if within := resp.GetResponseTxn(); within != nil {
		if len(within.Responses) == 0 {
			return nil
		}
		resp = within.Responses[0]
	}
	return resp.GetResponseRange().GetKvs()
}

// ttls asks how long the leases of holders have left. Whoever may not know that is told nothing.
func (s *survey) ttls(ctx context.Context, lines []line.Line) (map[clientv3.LeaseID]ttl, error) {
	all := make(map[clientv3.LeaseID]ttl)
	var ids []clientv3.LeaseID
	for _, l := range lines {
		for _, h := range l.Holders {
			if _, known := all[h.Lease]; !known && h.Lease != 0 {
				all[h.Lease] = ttl{}
				ids = append(ids, h.Lease)
			}
		}
	}
	var mu sync.Mutex
	err := inParallel(ctx, len(ids), func(ctx context.Context, i int) error {
		resp, err := s.client.TimeToLive(ctx, ids[i])
		if err != nil || resp.TTL < 0 {
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		all[ids[i]] = ttl{time.Duration(resp.GrantedTTL) * time.Second, time.Duration(resp.TTL) * time.Second}
		return nil
	})
	return all, err
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
