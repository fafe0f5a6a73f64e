package oplimit_test

import (
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/oplimit"
)

// TestLimit: what was refused is not to be asked for again, nor more than that.
func TestLimit(t *testing.T) {
	var l oplimit.Limit
	usual := l.OpsAtOnce()
	mayTake := func(ops int) (sent bool) {
		err := l.Within(ops, func() error { sent = true; return nil })
		return sent && err == nil
	}
	if !mayTake(1000) || l.TooMany(errors.New("another"), 1000) || l.TooMany(rpctypes.ErrTooManyOps, 1) {
		t.Error("something is refused before etcd has refused it for its size")
	}
	for _, step := range []struct{ refused, atOnce int }{{1000, usual}, {40, 20}, {60, 20}, {20, 10}, {3, 1}} {
		if !l.TooMany(rpctypes.ErrTooManyOps, step.refused) || l.OpsAtOnce() != step.atOnce {
			t.Errorf("%d refused: %d at once, not %d", step.refused, l.OpsAtOnce(), step.atOnce)
		}
		if mayTake(step.refused) {
			t.Errorf("%d may be asked for again", step.refused)
		}
	}
	if !mayTake(2) || mayTake(3) {
		t.Error("the smallest number that was refused is 3")
	}
	if err := l.Within(2, func() error { return rpctypes.ErrTooManyOps }); err != rpctypes.ErrTooManyOps || mayTake(2) {
		t.Errorf("2 are refused, and that is not learnt: %v", err)
	}
}
