package standing_test

import (
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/test/model"
)

// TestArrowsAreNeeded disables each arrow of the diagram in turn: some run then wants to take it.
func TestArrowsAreNeeded(t *testing.T) {
	casts := []model.Cast{{Private: 2, Try: 1, Turns: 2}, {Session: 2, Turns: 2}, {Private: 1, Session: 1, Unlinked: 1, Mutexes: 1},
		{Slots: 3, Of: 1}, {Sits: 4, Of: 1, Turns: 2}, {Slots: 2, Of: 1, Private: 1}}
	for _, arrow := range standing.Arrows() {
		giveBack := standing.Disable(arrow)
		caught := false
		for seed := uint64(0); seed < 3000 && !caught; seed++ {
			o := model.Run{Cast: casts[seed%uint64(len(casts))], Faults: int(seed % 5), Often: 4, Seed: seed}.Go()
			caught = o.Err != nil && strings.Contains(o.Err.Error(), "no arrow from "+arrow[0].String()+" to "+arrow[1].String())
		}
		giveBack()
		if !caught {
			t.Errorf("nobody goes from %v to %v", arrow[0], arrow[1])
		}
	}
	t.Logf("%d arrows", len(standing.Arrows()))
}
