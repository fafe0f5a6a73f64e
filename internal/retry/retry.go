// Package retry makes single requests to etcd until they are answered, and sorts their outcomes.
//
// A request is repeated by itself, and never as one of a group: the client's round robin takes each
// try to another member, and a group could meet a silent member at the same step each time.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
)

// Times between tries that fail, and how much longer than the first try the others may take.
const (
	PauseMin = 10 * time.Millisecond
	PauseMax = 250 * time.Millisecond

	// PauseRefused is the pause where etcd refuses again and again: each time may cost it the check
	// of a password.
	PauseRefused = time.Second

	Growth = 4

	// triesAtOnce bounds the load on an etcd that is slow.
	triesAtOnce = 3
)

// Do makes a request again and again until it succeeds, final says of an error that another try is
// useless, or ctx is done. It returns the answer of the try that succeeded.
//
// Each try begins when the one before has failed or taken longer than first, so a silent member
// costs no more than that. From the second try on a slow one has more time to be answered, while
// others are made beside it.
func Do[T any](ctx context.Context, first time.Duration, final func(error) bool, request func(context.Context) (T, error)) (T, error) {
	answer, err := Once(ctx, first, request)
	if isLast(err, final) {
		return answer, err
	}
	return Again(ctx, first, final, request, err)
}

// ErrClientClosed is what a request fails with when nothing can be asked any more.
var ErrClientClosed = errors.New("the etcd client is closed")

// CheckOpen returns ErrClientClosed if a client was closed: it would try for some time, and write a
// warning each time. A client whose context has ended still asks etcd.
func CheckOpen(client *clientv3.Client) error {
	if client.ActiveConnection().GetState() == connectivity.Shutdown {
		return ErrClientClosed
	}
	return nil
}

// isLast reports whether no try follows the one that has ended with err.
func isLast(err error, final func(error) bool) bool {
	return err == nil || err == ErrClientClosed || final(err)
}

// Once makes a request that is given up after some time. Etcd need not know of that limit: it would
// be sent as the deadline of a context, and would cost both sides more than a timer does.
func Once[T any](ctx context.Context, limit time.Duration, request func(context.Context) (T, error)) (T, error) {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(limit, cancel)
	defer timer.Stop()
	answer, err := request(limited)
	return answer, TimedOut(ctx, limited, err)
}

// TimedOut returns the error of a try. If the try was given up and the request goes on, the error
// is that its time ran out.
func TimedOut(request, try context.Context, err error) error {
	if err != nil && try.Err() != nil && request.Err() == nil {
		return context.DeadlineExceeded
	}
	return err
}

// Again is what Do does after a first try that failed with last.
func Again[T any](ctx context.Context, first time.Duration, final func(error) bool, request func(context.Context) (T, error), last error) (none T, _ error) {
	type result struct {
		answer T
		err    error
	}
	results := make(chan result)
	var tries sync.WaitGroup
	defer tries.Wait()
	all, stop := context.WithCancel(ctx)
	defer stop()
	pause, running := PauseMin, 0
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
				answer, err := Once(all, Growth*first, request)
				select {
				case results <- result{answer, err}:
				case <-all.Done():
				}
			})
			// The times are irregular: in step with what else this client asks, each try could meet
			// the silent member.
			next.Reset(first*3/4 + rand.N(first/2))
		case r := <-results:
			running--
			if isLast(r.err, final) {
				return r.answer, r.err
			}
			last, pause = r.err, min(2*pause, PauseMax)
			next.Reset(min(pause, first))
		case <-ctx.Done():
			return none, Ended(ctx, last)
		}
	}
}

// Ended returns the error of tries that ctx put an end to, the last of which failed with last. That
// its time ran out says nothing; anything better is kept.
func Ended(ctx context.Context, last error) error {
	if earlier := (*endedError)(nil); errors.As(last, &earlier) {
		last = earlier.last
	}
	if last == nil || errors.Is(last, context.Canceled) || errors.Is(last, context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return &endedError{context.Cause(ctx), last}
}

// An endedError says why tries have ended, and what the last of them said.
type endedError struct{ cause, last error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v (%v)", e.cause, e.last) }
func (e *endedError) Unwrap() []error { return []error{e.cause, e.last} }

// Cause returns why ctx has ended, and what etcd said to the last try, if err is the error of tries
// that ctx put an end to.
func Cause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if e := (*endedError)(nil); errors.As(err, &e) && e.cause == cause {
		return e
	}
	return cause
}

// Sleep waits for d and reports whether ctx is still alive.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
