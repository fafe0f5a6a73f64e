package retry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDo: tries that are not answered cost little, slow answers count all the same, and nothing is
// left running.
func TestDo(t *testing.T) {
	failed, final := errors.New("failed"), errors.New("final")
	hang := func(ctx context.Context) (int32, error) { <-ctx.Done(); return 0, ctx.Err() }
	tests := map[string]struct {
		answer func(ctx context.Context, n int32) (int32, error)
		within time.Duration
		want   int32 // the try that is answered, 0: none
		err    error
	}{
		"at once": {func(_ context.Context, n int32) (int32, error) { return n, nil }, 0, 1, nil},
		"two silent members": {func(ctx context.Context, n int32) (int32, error) {
			if n < 3 {
				return hang(ctx)
			}
			return n, nil
		}, 2400 * time.Millisecond, 3, nil},
		"slow": {func(ctx context.Context, n int32) (int32, error) {
			select {
			case <-time.After(3 * time.Second):
				return n, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}, 4100 * time.Millisecond, 2, nil},
		"refused for a while": {func(_ context.Context, n int32) (int32, error) {
			if n < 5 {
				return 0, failed
			}
			return n, nil
		}, 200 * time.Millisecond, 5, nil},
		"final": {func(_ context.Context, n int32) (int32, error) {
			if n < 3 {
				return 0, failed
			}
			return 0, final
		}, 100 * time.Millisecond, 0, final},
		"never": {func(ctx context.Context, _ int32) (int32, error) { return hang(ctx) }, 20 * time.Second, 0, context.DeadlineExceeded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var tries, running atomic.Int32
				began := time.Now()
				isFinal := func(err error) bool { return errors.Is(err, final) }
				got, err := Do(ctx, time.Second, isFinal, func(ctx context.Context) (int32, error) {
					if n := running.Add(1); n > triesAtOnce {
						t.Errorf("%d at once", n)
					}
					defer running.Add(-1)
					return tt.answer(ctx, tries.Add(1))
				})
				if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("try %d, %v", got, err)
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("it took %v", took)
				}
				if n := running.Load(); n != 0 {
					t.Errorf("%d are running", n)
				}
			})
		})
	}
}

// TestEndedAgain: what is said of one end of tries is not said of the next as well, however often
// they end.
func TestEndedAgain(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is over"))
	last := Ended(ended, errors.New("no leader"))
	again := Ended(ended, fmt.Errorf("renewing: %w", last))
	if again.Error() != last.Error() {
		t.Errorf("%v, then %v", last, again)
	}
}
