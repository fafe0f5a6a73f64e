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
	if !l.MayTake(1000) || l.TooMany(errors.New("another"), 1000) || l.TooMany(rpctypes.ErrTooManyOps, 1) {
		t.Error("something is refused before etcd has refused it for its size")
	}
	for _, step := range []struct{ refused, atOnce int }{{1000, usual}, {40, 20}, {60, 20}, {20, 10}, {3, 1}} {
		if !l.TooMany(rpctypes.ErrTooManyOps, step.refused) || l.OpsAtOnce() != step.atOnce {
			t.Errorf("%d refused: %d at once, not %d", step.refused, l.OpsAtOnce(), step.atOnce)
		}
		if l.MayTake(step.refused) {
			t.Errorf("%d may be asked for again", step.refused)
		}
	}
	if !l.MayTake(2) || l.MayTake(3) {
		t.Error("the smallest number that was refused is 3")
	}
}
