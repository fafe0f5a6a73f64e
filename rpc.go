package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Times between tries of one RPC that fail, and how much longer than the first one the others may take.
const (
	pauseMin = 10 * time.Millisecond
	pauseMax = 250 * time.Millisecond
	growth   = 4

	// triesAtOnce bounds the load on an etcd that is slow.
	triesAtOnce = 3
)

// verdict is what an error says about the request that it answers.
type verdict int

const (
	// unknown: it may have been applied, may be applied later, or never.
	unknown verdict = iota
	// refused: the server said no and will say so again.
	refused
	// notNow: the server did not do it, and may do it if asked again.
	notNow
)

// judge sorts an error of the client. Everything that is not clearly a no is an unknown outcome.
func judge(err error) verdict {
	switch code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.NotFound,
		codes.AlreadyExists, codes.OutOfRange, codes.Unimplemented:
		return refused
	case codes.ResourceExhausted:
		if isNoSpace(err) {
			return unknown
		}
		return notNow
	case codes.FailedPrecondition:
		if errors.Is(err, rpctypes.ErrNotLeader) {
			return notNow
		}
		return refused
	}
	return unknown
}

func code(err error) codes.Code {
	var ee rpctypes.EtcdError
	if errors.As(err, &ee) {
		return ee.Code()
	}
	return status.Code(err)
}

// persist makes an RPC again and again until it succeeds, give says of an error that trying again is no use, or ctx is done.
// Its answer is that of the try that succeeded. Each try begins when the one before has failed or taken longer than first: one silent member of a
// cluster costs no more than that, as the client's round robin brings the next one to another member. (That is why single
// RPCs are repeated here and never groups of them, which could meet the silent member at the same step for ever.) From
// the second try on a slow one has more time to be answered, while others are made beside it.
func persist[T any](ctx context.Context, first time.Duration, give func(error) bool, rpc func(context.Context) (T, error)) (T, error) {
	answer, err := try(ctx, first, rpc)
	if err == nil || give(err) {
		return answer, err
	}
	return hedge(ctx, first, give, rpc, err)
}

// try makes an RPC that is given up after some time. Etcd need not know of that limit: a deadline of the context's would be sent with the
// request, and cost both sides more than a timer does.
func try[T any](ctx context.Context, limit time.Duration, rpc func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(limit, cancel)
	defer timer.Stop()
	answer, err := rpc(limited)
	return answer, inTime(ctx, limited, err)
}

// inTime says of the error of a try that was given up while its RPC goes on that its time ran out.
func inTime(rpc, try context.Context, err error) error {
	if err != nil && try.Err() != nil && rpc.Err() == nil {
		return context.DeadlineExceeded
	}
	return err
}

// hedge is what persist does once a first try has failed.
func hedge[T any](ctx context.Context, first time.Duration, give func(error) bool, rpc func(context.Context) (T, error), last error) (none T, _ error) {
	type result struct {
		answer T
		err    error
	}
	results := make(chan result)
	var tries sync.WaitGroup
	defer tries.Wait()
	all, stop := context.WithCancel(ctx)
	defer stop()
	pause, running := pauseMin, 0
	next := time.NewTimer(pause)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if running == triesAtOnce {
				break // the next one begins when one of these has ended
			}
			running++
			tries.Go(func() {
				answer, err := try(all, growth*first, rpc)
				select {
				case results <- result{answer, err}:
				case <-all.Done():
				}
			})
			// Not at regular times: in step with what else this client asks, each try could meet the silent member.
			next.Reset(first*3/4 + rand.N(first/2))
		case r := <-results:
			running--
			if r.err == nil || give(r.err) {
				return r.answer, r.err
			}
			last, pause = r.err, min(2*pause, pauseMax)
			next.Reset(min(pause, first))
		case <-ctx.Done():
			return none, ended(ctx, last)
		}
	}
}

// ended is the error of tries that ctx put an end to. What the last try said is often only that its
// time ran out; anything better is kept.
func ended(ctx context.Context, last error) error {
	if last == nil || errors.Is(last, context.Canceled) || errors.Is(last, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return &endedError{context.Cause(ctx), last}
}

// An endedError says why tries have ended, and what the last of them said.
type endedError struct{ cause, last error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v (%v)", e.cause, e.last) }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.last} }

// causeOf returns why ctx has ended, and what etcd has said to the end, if err tells.
func causeOf(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if e := (*endedError)(nil); errors.As(err, &e) && e.cause == cause {
		return e
	}
	return cause
}

// isNoSpace reports whether etcd says that its space is exceeded. It says so of requests that it
// does not carry out, and of the ones with which it notices, which it has carried out. Either way
// that is settled when the answer comes. Nothing but what writes is answered so.
func isNoSpace(err error) bool { return errors.Is(err, rpctypes.ErrNoSpace) }

// mayStillDelete reports whether what was asked for is denied, and to delete alone may not be.
func mayStillDelete(err error) bool {
	return isNoSpace(err) || errors.Is(err, rpctypes.ErrPermissionDenied)
}

func isRefused(err error) bool { return judge(err) == refused }

// isFinal says of a transaction's error that to repeat it is no use.
func isFinal(err error) bool {
	return isRefused(err) || isNoSpace(err) || errors.Is(err, errHistoryLost) || errors.Is(err, errLeaseGone)
}

// sleep waits for d and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// revoke ends a lease and all its keys, and fences every write that is still on its way under it. Unknown
// outcomes are asked again: a lease that is not there any more counts as done.
func revoke(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, first time.Duration) error {
	_, err := persist(ctx, first, isRefused, func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
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
