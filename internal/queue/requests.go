package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// requests makes the requests of one machine.
type requests struct {
	*Options

	// The requests to join that have not been answered. Each is waited for until it is, also when
	// another one was answered: only then it is known that it creates nothing any more.
	unsettled atomic.Int64
	settled   func() // is called when there are none any more

	joins atomic.Int32 // how many requests to join are under way

	ends atomic.Bool // what is asked for is useless when validity has ended
	busy atomic.Pointer[Line]
}

// A Line is what is known of who holds a lock, and of how many keys are below it.
type Line struct {
	Held   bool
	Holder []byte
	Keys   int
}

// ask makes a request until its outcome is known, or ctx is done.
func (q *requests) ask(ctx context.Context, r message.Request) (message.Answer, error) {
	resp, repeated, err := q.request(ctx, r)
	if err != nil {
		return message.Answer{Outcome: outcome(r, err), Repeated: repeated}, err
	}
	a := translate.Answer(q.Place, r, resp)
	a.Repeated = repeated
	switch r.Name {
	case message.ReadBusy:
		line := Line{Keys: int(wire.CountOf(resp, 1))}
		if key := wire.Got(resp, 0); key != nil {
			line.Held, line.Holder = true, key.Value
		}
		q.busy.Store(&line)
	case message.ReadFar:
		if newest := wire.Got(resp, 2); newest != nil && !wire.IsPlace(q.Place.Lock, newest) {
			if newest, err = q.older(ctx, r.Rev); err != nil {
				return message.Answer{Outcome: outcome(r, err)}, err
			}
			a.Ahead = translate.AheadOf(newest, wire.Got(resp, 0))
		}
	}
	return a, nil
}

// outcome sorts an error of a request that was made until it was final. What is written under the
// lease of another place can be done without, if that may not be, or is over.
func outcome(r message.Request, err error) message.Outcome {
	switch {
	case retry.IsDenied(err), errors.Is(err, rpctypes.ErrLeaseNotFound) && r.WritesForOthers():
		return message.Denied
	case retry.IsNoSpace(err):
		return message.NoSpace
	case retry.IsRefused(err), errors.Is(err, lease.ErrHistoryLost):
		return message.Rejected
	}
	return message.Unknown
}

// request sends a request in the way that its kind needs. Repeated says that one try at least has
// an unknown outcome.
func (q *requests) request(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	switch r.Name {
	case message.AcquireIfFree, message.AcquireOrJoin:
		return q.tryToJoin(ctx, r)
	case message.Claim, message.ClaimBehindHolder, message.ClaimOldest:
		return q.rewriteWithSpace(ctx, r)
	case message.ReadLine, message.ReadFar:
		resp, err = q.Lease.Read(ctx, translate.Txn(q.Place, r, false))
		return resp, false, err
	case message.ReadBusy, message.ReadNewest, message.ReadHistory, message.ReadState, message.ReadTail, message.ReadWritten:
		resp, err = q.Lease.ReadUntil(ctx, lease.IsFinal, translate.Txn(q.Place, r, false))
		return resp, false, err
	}
	return q.rewrite(ctx, r)
}

// tryToJoin makes a request that creates the place. If it is not answered in time it is made again.
//
// What was not answered may be applied later, when the place is gone. It creates a place at which
// nobody stands, so that nobody works under it, and is waited for. So a try is not given up when
// its time is over. Beside joinsAtOnce of them another one begins only when etcd has answered a
// read: they do not pile up while it is silent, and those that hang at one member do not keep
// others from the next.
func (q *requests) tryToJoin(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	try := func(again bool) func(context.Context) (*pb.TxnResponse, error) {
		req := translate.Txn(q.Place, r, again)
		return func(ctx context.Context) (*pb.TxnResponse, error) { return q.join(ctx, req) }
	}
	resp, err = retry.Once(ctx, q.Lease.First(), try(false))
	if err == nil || lease.IsFinal(err) {
		return resp, false, err
	}
	limited, cancel := q.Lease.WhileValid(ctx)
	defer cancel()
	resp, err = retry.Again(limited, q.Lease.First(), lease.IsFinal, try(true), err)
	return resp, true, err
}

// joinsAtOnce is how many requests to join one contender has under way while etcd is silent.
const joinsAtOnce = 3

// join makes one try. It goes on when ctx has ended, for as long as the lease is looked after.
func (q *requests) join(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	type result struct {
		answer *pb.TxnResponse
		err    error
	}
	if q.joins.Add(1) > joinsAtOnce {
		if _, err := q.Lease.Read(ctx, wire.ProbeRead(q.Place.Lock)); err != nil {
			q.joins.Add(-1)
			return nil, err
		}
	}
	done := make(chan result, 1)
	q.unsettled.Add(1)
	settle := func() {
		if q.unsettled.Add(-1) == 0 {
			q.settled()
		}
	}
	if !q.Lease.Go(func(ctx context.Context) {
		resp, err := q.Lease.Txn(ctx, req)
		q.joins.Add(-1)
		if err == nil || lease.IsFinal(err) || retry.Classify(err) == retry.NotNow {
			settle()
		}
		done <- result{resp, err}
	}) {
		q.joins.Add(-1)
		settle()
		return nil, lease.ErrGone
	}
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// rewrite makes a transaction that may be applied more than once, until etcd answers it.
func (q *requests) rewrite(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	req, first := translate.Txn(q.Place, r, false), q.Lease.First()
	try := func(ctx context.Context) (*pb.TxnResponse, error) { return q.Lease.Txn(ctx, req) }
	ends := q.ends.Load()
	if ends {
		first = min(first, q.Lease.ValidUntil().Until())
	}
	if resp, err = retry.Once(ctx, first, try); err == nil || lease.IsFinal(err) {
		return resp, err != nil, err
	}
	if ends {
		var cancel context.CancelFunc
		ctx, cancel = q.Lease.WhileValid(ctx)
		defer cancel()
	}
	resp, err = retry.Again(ctx, q.Lease.First(), lease.IsFinal, try, err)
	return resp, true, err
}

// rewriteWithSpace is rewrite that waits until etcd has space.
func (q *requests) rewriteWithSpace(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	for waits := false; ; waits = true {
		resp, repeated, err = q.rewrite(ctx, r)
		if repeated = repeated || waits; !retry.IsNoSpace(err) {
			return resp, repeated, err
		}
		if !waits {
			q.Log.Log(ctx, slog.LevelWarn, "etcd has no space, waiting until it has", "key", q.Place.Lock)
		}
		if !retry.Sleep(ctx, retry.PauseMax) {
			return nil, true, context.Cause(ctx)
		}
	}
}

// older lists the line for the newest place that is older than a revision: a key that is not a
// place tells nothing of what is behind it. Of keys that have the name of a place some are read at
// a time, newest first: only then it shows whether they are places, and they may have values of any
// size.
func (q *requests) older(ctx context.Context, than int64) (newest *mvccpb.KeyValue, err error) {
	resp, err := q.Lease.Read(ctx, wire.NamesRead(q.Place.Lock, than))
	if err != nil {
		return nil, err
	}
	named := wire.NamedAsPlaces(q.Place.Lock, wire.KeysOf(resp, 0))
	for len(named) > 0 {
		some := named[:min(len(named), q.Lease.OpsAtOnce(), wire.ShortLine)]
		var keys []string
		for _, kv := range some {
			keys = append(keys, string(kv.Key))
		}
		resp, err = q.Lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(keys...))
		if q.Lease.TooMany(err, len(some)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var kvs []*mvccpb.KeyValue
		for i := range resp.Responses {
			kvs = append(kvs, wire.KeysOf(resp, i)...)
		}
		if newest = translate.NewestOlder(q.Place.Lock, kvs, than); newest != nil {
			return newest, nil
		}
		named = named[len(some):]
	}
	return nil, nil
}
