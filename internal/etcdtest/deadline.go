package etcdtest

import (
	"context"
	"testing"
	"time"
)

// Context returns a context that ends shortly before the test's own deadline, early enough to still
// report what was being waited for. Unlike t.Context it is alive in cleanups registered after the
// call.
func Context(t testing.TB) context.Context {
	ctx, cancel := untilDeadline(t)
	t.Cleanup(cancel)
	return ctx
}

// Await calls done until it returns nil, and fails the test with the last error when the test's
// deadline is near.
func Await(t testing.TB, what string, done func(context.Context) error) {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	if err := poll(ctx, done); err != nil {
		t.Fatalf("waited in vain for %s: %v", what, err)
	}
}

// poll calls done until it returns nil or ctx ends, and returns the last error that says more than
// that ctx ended. The longer it has waited, the longer it pauses: tests that wait side by side must
// not load the machine.
func poll(ctx context.Context, done func(context.Context) error) error {
	const shortest, longest = 2 * time.Millisecond, 25 * time.Millisecond
	var last error
	for began := time.Now(); ; {
		err := done(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(min(max(time.Since(began)/20, shortest), longest)):
		}
	}
}

// untilDeadline is Context for use within one function. A test started with -timeout=0 and a
// benchmark have no deadline; neither has their context.
func untilDeadline(t testing.TB) (context.Context, context.CancelFunc) {
	if t, ok := t.(interface{ Deadline() (time.Time, bool) }); ok {
		if deadline, ok := t.Deadline(); ok {
			margin := min(time.Until(deadline)/20, 10*time.Second)
			return context.WithDeadline(context.Background(), deadline.Add(-margin))
		}
	}
	return context.WithCancel(context.Background())
}
