// Package lease keeps one etcd lease and tells its members for how long they may rely on it.
//
// Three goroutines work for a lease. The renewer makes requests and may hang. The watchdog watches
// the clock and makes none: it tells the members when the grace begins and when validity ends. The
// reader runs now and then, and reads the state of the members for which a watch has told
// something.
//
// Lock order: members.mu, clock.mu. A member is called without either, and may hold its own mutex
// while it calls the lease.
package lease

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/etcdlock/etcdlock/internal/batch"
	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/notices"
	"github.com/etcdlock/etcdlock/internal/places"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/users"
	"github.com/etcdlock/etcdlock/internal/watch"
)

var (
	// ErrGone says that the lease has ended, or is given up.
	ErrGone = errors.New("the lease is gone")

	// ErrHistoryLost says that etcd was wiped, or restored from a backup.
	ErrHistoryLost = errors.New("etcd's history is not the one seen before")
)

// A Timing has the times of a lease, all of them set. Margin may be nil.
type Timing struct {
	TTL, Refresh, Grace, Connect time.Duration

	Margin func() time.Duration // by which validity ends sooner than usual
}

// A Lease is one lease of etcd's, with its members.
type Lease struct {
	Notices notices.Queue // for the user of the members
	Places  places.Places // that are named after the lease
	Batches *batch.Queue  // of what is written for its members; nil if the lease is not shared
	lookups *batch.Queue  // the same of keys that are read, but not behind renewals

	client  *clientv3.Client
	kv      pb.KVClient
	id      clientv3.LeaseID
	ttl     time.Duration // as granted, which may be more than was asked for
	cluster uint64
	first   time.Duration // time limit of the first try of a request
	shared  bool          // the lease is looked after although it has no members
	late    notices.Delay // that it is not renewed
	follows atomic.Bool   // somebody waits for the watches to have told all

	clock
	members
	users.Users // its members, and those who have left and still give back what they held

	Releases  users.Users // those that are under way
	Overtaken atomic.Bool // by the revocation, which may be why they find nothing
}

// ID returns etcd's id of the lease.
func (l *Lease) ID() clientv3.LeaseID { return l.id }

// Client returns the client that the lease was granted to.
func (l *Lease) Client() *clientv3.Client { return l.client }

// IsShared reports whether the lease is looked after although it has no members.
func (l *Lease) IsShared() bool { return l.shared }

// Timing returns the timing that the lease is looked after with.
func (l *Lease) Timing() Timing { return l.timing }

// TTL returns the TTL as granted.
func (l *Lease) TTL() time.Duration { return l.ttl }

// First returns how long a first try of a request may take.
func (l *Lease) First() time.Duration { return l.first }

// IsFrom reports whether an answer is from the cluster that granted the lease. A cluster that was
// wiped is another one.
func (l *Lease) IsFrom(h *pb.ResponseHeader) bool { return h.ClusterId == l.cluster }

// seen takes note of the answer to a linearizable read or a write. If it is from another cluster,
// or has a lower revision than was seen before the request was sent, the data is not what it was.
func (l *Lease) seen(h *pb.ResponseHeader, before int64) error {
	l.clock.mu.Lock()
	defer l.clock.mu.Unlock()
	if !l.IsFrom(h) || h.Revision < before {
		return ErrHistoryLost
	}
	l.revision = max(l.revision, h.Revision)
	return nil
}

// Txn makes one try of a transaction and compares its answer with what was seen before.
func (l *Lease) Txn(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := retry.CheckOpen(l.client); err != nil {
		return nil, err
	}
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

// Read makes a linearizable read until it is answered, whatever is refused. A permission may be
// gone for a while: that it is denied is final when the lease is not valid any more without a
// renewal since.
func (l *Lease) Read(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	var until boottime.Instant
	return l.ReadUntil(ctx, func(err error) bool {
		if !retry.IsDenied(err) {
			return errors.Is(err, ErrHistoryLost)
		}
		if until == 0 {
			until = l.ValidUntil()
		}
		return until.Until() <= 0
	}, req)
}

// ReadUntil is Read with more errors that are final.
func (l *Lease) ReadUntil(ctx context.Context, final func(error) bool, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	key, together := batch.IsRead(req)
	return retry.Do(ctx, l.first, final, func(ctx context.Context) (*pb.TxnResponse, error) {
		if together && l.lookups != nil {
			return l.lookups.Do(ctx, key, req)
		}
		return l.Txn(ctx, req)
	})
}

// IsFinal reports whether another try of a transaction that failed is useless.
func IsFinal(err error) bool {
	return retry.IsRefused(err) || retry.IsNoSpace(err) || errors.Is(err, ErrHistoryLost) || errors.Is(err, ErrGone)
}

// Watch begins to watch a key, or a range, see [watch.Key].
func (l *Lease) Watch(key, end string, from int64, owner watch.Owner) *watch.Watch {
	return watch.Key(l.client, key, end, from, owner, retry.Growth*l.first)
}

// Cancel ends watches.
func (l *Lease) Cancel(watches ...*watch.Watch) { watch.Cancel(l.client, watches...) }

// Add takes a member in. A lease that is not shared is looked after with the member's timing. It
// returns why the lease is useless, if it is.
func (l *Lease) Add(m Member, t Timing, log *slog.Logger) error {
	if !l.shared {
		l.members.mu.Lock()
		l.timing, l.log = t, log
		l.members.mu.Unlock()
		l.bound(t)
	}
	if !l.Use() {
		l.Retire(ErrGone)
	}
	return l.add(m)
}

// Remove lets a member go. The goroutines of a lease that is not shared end with its last one.
func (l *Lease) Remove(m Member) {
	was, empty := l.remove(m)
	if empty && !l.shared {
		l.Close()
	}
	if was {
		l.Done()
	}
}

// Share makes a lease one that is looked after from now on, whether it has members or not.
func (l *Lease) Share(t Timing, log *slog.Logger) {
	l.members.mu.Lock()
	l.timing, l.log, l.shared = t, log, true
	l.Batches, l.lookups = batch.New(batch.Writes{}, l.Txn, &l.Limit), batch.New(batch.Reads{}, l.Txn, &l.Limit)
	l.reviveLocked()
	l.members.mu.Unlock()
	l.Maintain()
}

// DeferCare has a member that is valid for some time looked after once it has lasted, or now if the
// watchdog has something to do before. Who waits and then holds the lock asks for it twice.
func (l *Lease) DeferCare(m Member, valid time.Duration) {
	l.deferCare(m, valid < l.timing.Grace+careAfter)
}

// ScheduleRead has a member's state read soon.
func (l *Lease) ScheduleRead(m Member) {
	l.members.mu.Lock()
	defer l.members.mu.Unlock()
	slot := m.Slot()
	if l.ctx == nil || l.ctx.Err() != nil || slot.unread || !slot.used {
		return
	}
	slot.unread = true
	l.unread = append(l.unread, m)
	if !l.reads {
		l.reads = true
		ctx := l.ctx
		l.running.Go(func() { reader{l}.run(ctx) })
	}
}

// Fail says why the lease is useless, and tells its members. What remains under it goes with it.
func (l *Lease) Fail(err error) {
	for _, m := range l.Retire(err) {
		m.OnLeaseLost(err)
	}
	l.forgetRemnants()
}

// failed draws conclusions from the error of a renewal or of a read, or nil. It reports whether the
// lease is useless, or ctx has ended.
func (l *Lease) failed(ctx context.Context, err error) bool {
	if !errors.Is(err, ErrGone) && !errors.Is(err, ErrHistoryLost) {
		return ctx.Err() != nil
	}
	l.Fail(err)
	return true
}

// expire tells the members that validity has ended. If one of them held its lock, the lease is not
// renewed any more: it must go, with the lock. A member that only waits may wait for longer.
func (l *Lease) expire() (held bool) {
	if held = l.tell(Member.OnExpired); held {
		l.StopRenewing()
		l.Fail(ErrGone)
	}
	return held
}

// IsReady reports whether a shared lease can serve new members without being renewed first. Nil
// cannot.
func (l *Lease) IsReady() bool {
	return l != nil && l.Err() == nil && !l.IsCrowded() && l.ValidUntil().Until() > l.timing.Grace+2*l.first
}

// SleepUntil waits for an instant and reports whether ctx is still alive.
func SleepUntil(ctx context.Context, timer *boottime.Timer, at boottime.Instant) bool {
	timer.Reset(at)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
