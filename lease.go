package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/keepalive"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/validity"
	"github.com/etcdlock/etcdlock/internal/watch"
)

var (
	errLeaseGone   = errors.New("the lease is gone")
	errHistoryLost = errors.New("etcd's history is not the one seen before")
)

// answer is what etcd answers to a transaction.
type answer = pb.TxnResponse

// A lease is one lease of etcd's with what is known of its life, and the contenders that hang on it.
type lease struct {
	client  *clientv3.Client
	kv      pb.KVClient
	id      clientv3.LeaseID
	ttl     time.Duration // as granted, which may be more than was asked for
	cluster uint64
	first   time.Duration // time limit of an RPC's first try
	phase   float64       // in which part of the time between two renewals the first one is made
	places  atomic.Int64  // the number of the last place in line that was named after it

	margin func() time.Duration // beyond the usual one; nil: none

	mu       sync.Mutex
	most     time.Duration    // that margin can be
	granted  boottime.Instant // when the grant was sent
	sent     boottime.Instant // when the last counted grant or renewal was sent
	sooner   time.Duration    // by which the usual margin was exceeded then
	valid    boottime.Instant // the end of validity
	revision int64            // the newest seen
	lastErr  error            // of the last failed renewal since the last counted one

	keeper chan struct{} // rings for the keeper

	tenants
}

// A sentAnswer is an answer, and when the request that it answers was sent.
type sentAnswer[T any] struct {
	answer T
	sent   boottime.Instant
}

// A granting asks for one lease, with an id of our own: a try whose answer was lost, or that said
// that there is no space, may have been carried out, and then shows itself in the next, or is
// revoked.
type granting struct {
	rpc pb.LeaseClient
	ttl time.Duration

	mu    sync.Mutex
	id    int64
	tries int
	begun boottime.Instant // when the first try with this id was sent
	last  error
}

// errTaken says that somebody else has a lease with the id that we chose.
var errTaken = errors.New("the lease's id is taken")

// try asks once.
func (g *granting) try(ctx context.Context) (a sentAnswer[*pb.LeaseGrantResponse], err error) {
	a.sent = boottime.Now()
	g.mu.Lock()
	if g.tries == 0 {
		g.id, g.begun = 1+rand.Int64N(math.MaxInt64-1), a.sent
	}
	g.tries++
	id, first := g.id, g.tries == 1
	g.mu.Unlock()
	// Not waiting for a connection brings the reason why there is none.
	a.answer, err = g.rpc.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: int64(g.ttl / time.Second)}, grpc.WaitForReady(false))
	if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		return a, err
	}
	if first {
		return a, errTaken
	}
	is, err := g.rpc.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	if err != nil {
		return a, err
	}
	a.sent = g.begun
	a.answer = &pb.LeaseGrantResponse{Header: is.Header, ID: id, TTL: is.GrantedTTL}
	return a, nil
}

// failed takes note of why there was no answer. That there is no connection says the most.
func (g *granting) failed(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil && (g.last == nil || retry.Code(err) == codes.Unavailable) {
		g.last = err
	}
}

// grantLease asks for a lease until etcd answers, at most for the time that the settings allow. One
// of which it is not known whether it was granted is owed.
func (s *Session) grantLease(ctx context.Context, t timing) (*lease, error) {
	limited, cancel := context.WithTimeoutCause(ctx, t.connect, ErrNoAnswer)
	defer cancel()
	g := &granting{rpc: pb.NewLeaseClient(s.client.ActiveConnection()), ttl: t.ttl}
	isNo := func(err error) bool { return retry.IsRefused(err) || errors.Is(err, errTaken) }
	final := func(err error) bool { return isNo(err) || retry.IsNoSpace(err) }
	granted, err := retry.Do(limited, time.Second, final, func(try context.Context) (sentAnswer[*pb.LeaseGrantResponse], error) {
		a, err := g.try(try)
		err = retry.TimedOut(limited, try, err)
		g.failed(err)
		return a, rpctypes.Error(err)
	})
	if err != nil && !isNo(err) {
		s.owe(&lease{id: clientv3.LeaseID(g.id), first: time.Second})
	}
	switch {
	case errors.Is(err, ErrNoAnswer):
		return nil, fmt.Errorf("%w within %v: %w", ErrNoAnswer, t.connect, g.last)
	case retry.IsNoSpace(err):
		s.payNow(ctx)
		fallthrough
	case err != nil:
		return nil, fmt.Errorf("asking for a lease: %w", err)
	}
	return newLease(s.client, granted, t), nil
}

func newLease(client *clientv3.Client, granted sentAnswer[*pb.LeaseGrantResponse], t timing) *lease {
	l := &lease{
		client:  client,
		kv:      pb.NewKVClient(client.ActiveConnection()),
		id:      clientv3.LeaseID(granted.answer.ID),
		ttl:     time.Duration(granted.answer.TTL) * time.Second,
		cluster: granted.answer.Header.ClusterId,
		margin:  t.margin,
		phase:   rand.Float64(),
		granted: granted.sent,
		keeper:  make(chan struct{}, 1),
	}
	l.bound(t)
	l.count(granted.sent)
	// Several tries must fit into what a renewal has, and a first try into a slow commit.
	l.first = min(max(l.ttl/16, 100*time.Millisecond), time.Second)
	return l
}

// bound bounds the margin by what the settings leave room for.
func (l *lease) bound(t timing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = validity.MaxExtra(t.ttl, t.refresh, t.grace)
}

// validUntil is the instant up to which nobody else can get what hangs on the lease.
func (l *lease) validUntil() boottime.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.valid
}

// wholeMargin is the part of the TTL that was not relied on at the last grant or renewal that counts.
func (l *lease) wholeMargin() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return validity.Margin(l.ttl) + l.sooner
}

// whileValid is ctx until validity ends.
func (l *lease) whileValid(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, time.Now().Add(l.validUntil().Until()), errors.New("validity has ended"))
}

// toEnd is ctx until validity ends, and for fenceLimit at least: etcd may keep the lease for
// longer.
func (l *lease) toEnd(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, max(l.validUntil().Until(), fenceLimit), errors.New("validity has ended"))
}

// renewAt is the instant at which the lease is to be renewed. If validity ends sooner than usual,
// the renewal is due as much sooner. The first one comes up to half of the time sooner: leases that
// were taken together are not renewed together.
func (l *lease) renewAt() boottime.Instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	after := max(l.refresh-l.sooner, l.refresh/2)
	if l.sent == l.granted {
		after -= time.Duration(l.phase * float64(after) / 2)
	}
	return l.sent.Add(after)
}

func (l *lease) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastErr
}

// seen takes note of the answer to a linearizable read or a write. Another cluster, or a lower revision than
// was seen before the request was sent, means that the data is not what it was.
func (l *lease) seen(h *pb.ResponseHeader, before int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.ClusterId != l.cluster || h.Revision < before {
		return errHistoryLost
	}
	l.revision = max(l.revision, h.Revision)
	return nil
}

func (l *lease) newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

// txn makes one try of a transaction and holds its answer against what was seen before.
func (l *lease) txn(ctx context.Context, req *pb.TxnRequest) (*answer, error) {
	before := l.newest()
	resp, err := l.kv.Txn(ctx, req, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, clientv3.ContextError(ctx, err)
	}
	if err := l.seen(resp.Header, before); err != nil {
		return nil, err
	}
	return resp, nil
}

// read makes a linearizable read of several keys in one revision, until it is answered.
func (l *lease) read(ctx context.Context, req *pb.TxnRequest) (*answer, error) {
	return l.readUntil(ctx, func(err error) bool { return errors.Is(err, errHistoryLost) }, req)
}

// readUntil is read for which more errors are final.
func (l *lease) readUntil(ctx context.Context, final func(error) bool, req *pb.TxnRequest) (*answer, error) {
	return retry.Do(ctx, l.first, final, func(ctx context.Context) (*answer, error) {
		return l.txn(ctx, req)
	})
}

// watch begins to watch a key, see watchKey.
func (l *lease) watch(key string, from int64, owner watch.Owner) *watch.Watch {
	return watch.Key(l.client, key, from, owner, retry.Growth*l.first)
}

// renew renews the lease and returns the answer to a read made after it. It does not give up before
// ctx is done, or the lease is known to be gone (errLeaseGone), or history is not what it was
// (errHistoryLost), or the renewal or the read is refused.
//
// A leader that was stopped or cut off may still acknowledge renewals that its successor never
// hears of. So a renewal counts only when a linearizable read, sent after its answer, comes back
// with the same raft term: then whoever acknowledged it was the leader. Otherwise it is made again.
// Without anything to read it does not count, and there is no answer.
func (l *lease) renew(ctx context.Context, read func(context.Context) (*answer, error)) (*answer, error) {
	for {
		renewal, err := keepalive.Renew(ctx, l.client, l.id, l.first, func(err error) { l.noting(err) })
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return nil, errLeaseGone
		case retry.IsRefused(err):
			return nil, l.noting(err)
		case err != nil:
			return nil, l.noting(retry.Ended(ctx, l.lastError()))
		}
		resp, err := read(ctx)
		if err != nil || resp == nil {
			return nil, l.noting(err)
		}
		if resp.Header.RaftTerm == renewal.Term {
			l.count(renewal.Sent)
			return resp, nil
		}
		if !retry.Sleep(ctx, retry.PauseMin) {
			return nil, context.Cause(ctx)
		}
	}
}

// noting keeps a failed try's error for the message of a loss; "its time ran out" never hides a better one.
func (l *lease) noting(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lastErr == nil || !errors.Is(err, context.DeadlineExceeded) {
		l.lastErr = err
	}
	return err
}

// count takes note of a grant or renewal that counts. The end of validity never moves back.
func (l *lease) count(sent boottime.Instant) {
	sooner := time.Duration(0)
	if l.margin != nil {
		sooner = max(l.margin(), 0)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sooner = min(sooner, l.most)
	l.sent, l.sooner, l.lastErr = max(l.sent, sent), sooner, nil
	l.valid = max(l.valid, l.sent.Add(l.ttl-validity.Margin(l.ttl)-sooner))
	l.ring()
}

// ring has the keeper look at the clock.
func (l *lease) ring() {
	select {
	case l.keeper <- struct{}{}:
	default:
	}
}

// isFinal says of a transaction's error that to repeat it is no use.
func isFinal(err error) bool {
	return retry.IsRefused(err) || retry.IsNoSpace(err) || errors.Is(err, errHistoryLost) || errors.Is(err, errLeaseGone)
}

// revoke ends a lease and all its keys, and fences every write that is still on its way under it.
// Unknown outcomes are asked again: a lease that is not there any more counts as done.
func revoke(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, first time.Duration) error {
	_, err := retry.Do(ctx, first, retry.IsRefused, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		resp, err := client.Revoke(ctx, id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil, nil
		}
		return resp, err
	})
	if err != nil {
		return fmt.Errorf("revoking lease %x: %w", int64(id), err)
	}
	return nil
}
