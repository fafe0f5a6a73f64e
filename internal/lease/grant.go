package lease

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// grantFirst is how long a first try of a grant may take.
const grantFirst = time.Second

// A GrantError says why there is no lease.
type GrantError struct {
	// Owed is the id of a lease that etcd may have granted all the same, or 0.
	Owed clientv3.LeaseID
	Err  error
}

// Error returns the text of Err.
func (e *GrantError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *GrantError) Unwrap() error { return e.Err }

// Grant asks for a lease until etcd answers or ctx is done. Its error is a *GrantError. If ctx
// ended the wait, that wraps the cause of ctx and what etcd said at last.
func Grant(ctx context.Context, client *clientv3.Client, t Timing) (*Lease, error) {
	g := &granting{rpc: pb.NewLeaseClient(client.ActiveConnection()), ttl: t.TTL}
	isNo := func(err error) bool { return retry.IsRefused(err) || errors.Is(err, errTaken) }
	final := func(err error) bool { return isNo(err) || retry.IsNoSpace(err) }
	granted, err := retry.Do(ctx, grantFirst, final, func(try context.Context) (granted, error) {
		if err := retry.CheckOpen(client); err != nil {
			return granted{}, err
		}
		a, err := g.try(try)
		err = retry.TimedOut(ctx, try, err)
		g.failed(err)
		return a, rpctypes.Error(err)
	})
	if err == nil {
		return newLease(client, granted, t), nil
	}
	failed := &GrantError{Err: fmt.Errorf("asking for a lease: %w", err)}
	if ctx.Err() != nil {
		failed.Err = fmt.Errorf("%w: %w", context.Cause(ctx), g.last)
	}
	if !isNo(err) {
		failed.Owed = clientv3.LeaseID(g.id)
	}
	return nil, failed
}

// Revoke ends a lease and all its keys, and fences every write that is still on its way under it.
// It asks again while the outcome is unknown. A lease that does not exist any more counts as
// revoked.
func Revoke(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, first time.Duration) error {
	_, err := retry.Do(ctx, first, retry.IsRefused, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		if err := retry.CheckOpen(client); err != nil {
			return nil, err
		}
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

// granted is the answer to a grant, and when the request was sent.
type granted struct {
	answer *pb.LeaseGrantResponse
	sent   boottime.Instant
}

// A granting asks for one lease, whose id it chooses: a try whose answer was lost, or that said
// that there is no space, may have been applied, and then shows itself in the next one, or is
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

// errTaken says that somebody else has a lease with the id that was chosen.
var errTaken = errors.New("the lease's id is taken")

// try asks once.
func (g *granting) try(ctx context.Context) (a granted, err error) {
	a.sent = boottime.Now()
	g.mu.Lock()
	if g.tries == 0 {
		g.id, g.begun = 1+rand.Int64N(math.MaxInt64-1), a.sent
	}
	g.tries++
	id, first := g.id, g.tries == 1
	g.mu.Unlock()
	// Not waiting for a connection brings the reason why it cannot be made.
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

func newLease(client *clientv3.Client, g granted, t Timing) *Lease {
	l := &Lease{
		client:  client,
		kv:      pb.NewKVClient(client.ActiveConnection()),
		id:      clientv3.LeaseID(g.answer.ID),
		ttl:     time.Duration(g.answer.TTL) * time.Second,
		cluster: g.answer.Header.ClusterId,
		clock:   newClock(g.sent, t.Margin),
	}
	l.probed = make(chan struct{}, 1)
	l.bound(t)
	l.count(g.sent, l.ttl)
	// Several tries must fit into what a renewal has, and a first try into a slow commit.
	l.first = min(max(l.ttl/16, 100*time.Millisecond), time.Second)
	return l
}
