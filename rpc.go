package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Times between tries of one RPC, and how far the time limit of a try grows.
const (
	pauseMin = 10 * time.Millisecond
	pauseMax = 250 * time.Millisecond
	growth   = 4
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
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return refused
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

// persist makes an RPC again and again, each try with a time limit of its own that grows from first, until
// it succeeds, give says of an error that trying again is no use, or ctx is done. One silent member of a
// cluster costs a try, as the client's round robin brings the next one to another member: that is why single
// RPCs are repeated here and never groups of them, which could meet the silent member at the same step for ever.
func persist(ctx context.Context, first time.Duration, give func(error) bool, rpc func(context.Context) error) error {
	limit, pause := first, pauseMin
	for {
		try, cancel := context.WithTimeout(ctx, limit)
		err := rpc(try)
		cancel()
		if err == nil || give(err) {
			return err
		}
		if !sleep(ctx, pause) {
			return ended(ctx, err)
		}
		limit, pause = min(2*limit, growth*first), min(2*pause, pauseMax)
	}
}

// ended is the error of tries that ctx put an end to. What the last try said is often only that its time ran
// out; anything better is kept.
func ended(ctx context.Context, last error) error {
	if last == nil || errors.Is(last, context.Canceled) || errors.Is(last, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w (%w)", context.Cause(ctx), last)
}

func isRefused(err error) bool { return judge(err) == refused }

// isFinal says of a transaction's error that to repeat it is no use.
func isFinal(err error) bool { return isRefused(err) || errors.Is(err, errHistoryLost) }

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
	err := persist(ctx, first, isRefused, func(ctx context.Context) error {
		_, err := client.Revoke(ctx, id)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("revoking lease %x: %w", int64(id), err)
	}
	return nil
}
