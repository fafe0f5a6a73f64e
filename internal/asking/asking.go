// Package asking makes the requests of a machine of package protocol: each in the way that its kind
// needs, until its outcome is known.
package asking

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Sender makes the requests of one machine.
type Sender struct {
	Place   *wire.Place
	Lease   *lease.Lease
	Log     *slog.Logger
	Settled func() // is called when all requests to join have been answered

	// Ends says that what is asked for is useless when validity has ended.
	Ends atomic.Bool

	// The requests to join that have not been answered. Each is waited for until it is, also when
	// another one was answered: only then it is known that it creates nothing any more.
	unsettled atomic.Int64

	joins atomic.Int32 // how many requests to join are under way

	busy   atomic.Pointer[wire.Busy]
	oldest atomic.Pointer[mvccpb.KeyValue]
}

// IsSettled reports whether all requests to join have been answered.
func (s *Sender) IsSettled() bool { return s.unsettled.Load() == 0 }

// IsDoubtful reports whether no answer can come any more to some request to join.
func (s *Sender) IsDoubtful() bool { return !s.IsSettled() && s.joins.Load() == 0 }

// Busy returns what the last request of ReadBusy has found.
func (s *Sender) Busy() wire.Busy { return *s.busy.Load() }

// Oldest returns what the last request of ReadKind has found, which is not nil.
func (s *Sender) Oldest() *mvccpb.KeyValue { return s.oldest.Load() }

// Ask makes a request until its outcome is known, or ctx is done.
func (s *Sender) Ask(ctx context.Context, r message.Request) (message.Answer, error) {
	resp, repeated, err := s.request(ctx, r)
	a := s.Answer(r, resp, repeated, err)
	if err != nil {
		return a, err
	}
	switch r.Name {
	case message.ReadBusy:
		busy := wire.BusyOf(*s.Place, resp)
		s.busy.Store(&busy)
	case message.ReadKind:
		s.oldest.Store(translate.Oldest(s.Place.Lock, resp))
	case message.ReadFar:
		if newest := translate.Newest(*s.Place, resp); newest != nil && !wire.IsPlace(s.Place.Lock, newest) {
			if newest, err = s.older(ctx, r.Rev); err != nil {
				return message.Answer{Outcome: outcome(r, err)}, err
			}
			a.Ahead, a.Found = translate.Found(s.Place.Lock, newest, wire.Got(resp, 0))
		}
	}
	return a, nil
}

// Answer says what came of a request.
func (s *Sender) Answer(r message.Request, resp *pb.TxnResponse, repeated bool, err error) (a message.Answer) {
	if err != nil {
		return message.Answer{Outcome: outcome(r, err), Repeated: repeated}
	}
	a = translate.Answer(*s.Place, r, resp)
	a.Repeated = repeated
	return a
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
func (s *Sender) request(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	switch {
	case r.Joins():
		return s.Join(ctx, func(again bool) *pb.TxnRequest { return translate.Txn(*s.Place, r, again) })
	case r.Name == message.ReadLine, r.Name == message.ReadFar:
		resp, err = s.Lease.Read(ctx, translate.Txn(*s.Place, r, false))
		return resp, false, err
	case translate.IsRead(*s.Place, r):
		resp, err = s.Lease.ReadUntil(ctx, lease.IsFinal, translate.Txn(*s.Place, r, false))
		return resp, false, err
	case r.Claims():
		return s.rewriteWithSpace(ctx, r)
	}
	return s.Rewrite(ctx, r)
}

// Join makes a request that creates the place, and those of others that join with it, all at their
// first request. Txn returns it, in another form if it is made again: that it is if it is not
// answered in time.
//
// What was not answered may be applied later, when the place is gone. It creates a place at which
// nobody stands, so that nobody works under it, and is waited for. So a try is not given up when
// its time is over. Beside joinsAtOnce of them another one begins only when etcd has answered a
// read: they do not pile up while it is silent, and those that hang at one member do not keep
// others from the next.
func (s *Sender) Join(ctx context.Context, txn func(again bool) *pb.TxnRequest, with ...*Sender) (resp *pb.TxnResponse, repeated bool, err error) {
	try := func(again bool) func(context.Context) (*pb.TxnResponse, error) {
		req := txn(again)
		return func(ctx context.Context) (*pb.TxnResponse, error) { return s.try(ctx, req, with) }
	}
	resp, err = retry.Once(ctx, s.Lease.First(), try(false))
	if err == nil || lease.IsFinal(err) {
		return resp, false, err
	}
	limited, cancel := s.Lease.WhileValid(ctx)
	defer cancel()
	resp, err = retry.Again(limited, s.Lease.First(), lease.IsFinal, try(true), err)
	return resp, true, err
}

// joinsAtOnce is how many requests to join one contender has under way while etcd is silent.
const joinsAtOnce = 3

// try makes one try to join, for others as well. It goes on when ctx has ended, for as long as the
// lease is looked after.
func (s *Sender) try(ctx context.Context, req *pb.TxnRequest, with []*Sender) (*pb.TxnResponse, error) {
	type result struct {
		answer *pb.TxnResponse
		err    error
	}
	if s.underWay(with, 1) > joinsAtOnce {
		if _, err := s.Lease.Read(ctx, wire.ProbeRead(s.Place.Lock)); err != nil {
			s.underWay(with, -1)
			return nil, err
		}
	}
	done := make(chan result, 1)
	s.unsettle(with)
	if !s.Lease.Go(func(ctx context.Context) {
		resp, err := s.write(ctx, req, len(with) == 0)
		s.underWay(with, -1)
		if err == nil || lease.IsFinal(err) || retry.Classify(err) == retry.NotNow {
			s.settle(with)
		}
		done <- result{resp, err}
	}) {
		s.underWay(with, -1)
		s.settle(with)
		return nil, lease.ErrGone
	}
	select {
	case r := <-done:
		return r.answer, r.err
	case <-ctx.Done():
		return nil, ctx.Err() // its cause may be an error of etcd's, about something else
	}
}

// underWay counts requests to join, and returns how many are under way then.
func (s *Sender) underWay(with []*Sender, more int32) int32 {
	for _, one := range with {
		one.joins.Add(more)
	}
	return s.joins.Add(more)
}

func (s *Sender) unsettle(with []*Sender) {
	for _, one := range with {
		one.unsettled.Add(1)
	}
	s.unsettled.Add(1)
}

func (s *Sender) settle(with []*Sender) {
	for _, one := range with {
		one.settle(nil)
	}
	if s.unsettled.Add(-1) == 0 {
		s.Settled()
	}
}

// Rewrite makes a transaction that may be applied more than once, until etcd answers it.
func (s *Sender) Rewrite(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	resp, again, err := s.untilAnswered(ctx, translate.Txn(*s.Place, r, false), true)
	return resp, again || err != nil, err
}

// RewriteAll is Rewrite for a transaction of several locks.
func (s *Sender) RewriteAll(ctx context.Context, req *pb.TxnRequest) (resp *pb.TxnResponse, repeated bool, err error) {
	return s.untilAnswered(ctx, req, false)
}

// write makes one try of a transaction: of one lock together with those of others, if etcd is busy
// with these.
func (s *Sender) write(ctx context.Context, req *pb.TxnRequest, one bool) (*pb.TxnResponse, error) {
	if q := s.Lease.Batches; q != nil && one {
		return q.Do(ctx, s.Place.Lock, req)
	}
	return s.Lease.Txn(ctx, req)
}

// untilAnswered makes a transaction of one lock, or of several, until etcd answers it. Again says
// that it was made more than once.
func (s *Sender) untilAnswered(ctx context.Context, req *pb.TxnRequest, one bool) (resp *pb.TxnResponse, again bool, err error) {
	first := s.Lease.First()
	try := func(ctx context.Context) (*pb.TxnResponse, error) { return s.write(ctx, req, one) }
	ends := s.Ends.Load()
	if ends {
		first = min(first, s.Lease.ValidUntil().Until())
	}
	if resp, err = retry.Once(ctx, first, try); err == nil || lease.IsFinal(err) {
		return resp, false, err
	}
	if ends {
		var cancel context.CancelFunc
		ctx, cancel = s.Lease.WhileValid(ctx)
		defer cancel()
	}
	resp, err = retry.Again(ctx, s.Lease.First(), lease.IsFinal, try, err)
	return resp, true, err
}

// rewriteWithSpace is Rewrite that waits until etcd has space.
func (s *Sender) rewriteWithSpace(ctx context.Context, r message.Request) (resp *pb.TxnResponse, repeated bool, err error) {
	for waits := false; ; waits = true {
		resp, repeated, err = s.Rewrite(ctx, r)
		if repeated = repeated || waits; !retry.IsNoSpace(err) {
			return resp, repeated, err
		}
		if !waits {
			s.Lease.Notices.Log(s.Log, slog.LevelWarn, "etcd has no space, waiting until it has", "key", s.Place.Lock)
		}
		if !retry.Sleep(ctx, retry.PauseMax) {
			return nil, true, ctx.Err()
		}
	}
}

// older lists the line for the newest place that is older than a revision: a key that is not a
// place tells nothing of what is behind it. Of keys that have the name of a place some are read at
// a time, newest first: only then it shows whether they are places, and they may have values of any
// size.
func (s *Sender) older(ctx context.Context, than int64) (newest *mvccpb.KeyValue, err error) {
	resp, err := s.Lease.Read(ctx, wire.NamesRead(s.Place.Lock, than))
	if err != nil {
		return nil, err
	}
	named := wire.NamedAsPlaces(s.Place.Lock, wire.KeysOf(resp, 0))
	if s.Place.Mode == mode.Shared { // others who share the lock do not stand before it
		named = slices.DeleteFunc(named, func(kv *mvccpb.KeyValue) bool { return wire.IsShared(s.Place.Lock, kv) })
	}
	for len(named) > 0 {
		some := named[:min(len(named), s.Lease.OpsAtOnce(), wire.ShortLine)]
		var keys []string
		for _, kv := range some {
			keys = append(keys, string(kv.Key))
		}
		resp, err = s.Lease.ReadUntil(ctx, lease.IsFinal, wire.KeyRead(keys...))
		if s.Lease.TooMany(err, len(some)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var kvs []*mvccpb.KeyValue
		for i := range resp.Responses {
			kvs = append(kvs, wire.KeysOf(resp, i)...)
		}
		if newest = translate.NewestOlder(*s.Place, kvs, than); newest != nil {
			return newest, nil
		}
		named = named[len(some):]
	}
	return nil, nil
}
