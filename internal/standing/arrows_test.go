package standing_test

import (
	"os"
	"slices"
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

// TestArrowsAreListed: the comment of package protocol lists the arrows that there are, in the
// order of states.
func TestArrowsAreListed(t *testing.T) {
	doc, err := os.ReadFile("../protocol/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var listed, want []string
	for _, line := range strings.Split(string(doc), "\n") {
		from, to, isList := strings.Cut(strings.TrimPrefix(line, "//\t"), " -> ")
		if !isList {
			continue
		}
		for _, name := range strings.Fields(to) {
			listed = append(listed, strings.ToLower(strings.TrimSpace(from)+" to "+name))
		}
	}
	arrows := standing.Arrows()
	slices.SortFunc(arrows, func(a, b [2]standing.State) int { return slices.Compare(a[:], b[:]) })
	for _, arrow := range arrows {
		want = append(want, arrow[0].String()+" to "+arrow[1].String())
	}
	if !slices.Equal(listed, want) {
		t.Errorf("listed are\n%s\nnot\n%s", strings.Join(listed, "\n"), strings.Join(want, "\n"))
	}
}

// TestTransitionTakesArrowsOnly: it panics where none leads, also from a state to itself.
func TestTransitionTakesArrowsOnly(t *testing.T) {
	for from := standing.Idle; from <= standing.Gone; from++ {
		for to := standing.Idle; to <= standing.Gone; to++ {
			m := standing.Standing{State: from}
			func() {
				defer func() { _ = recover() }()
				m.Transition(to)
				m.Token = 1 // it has not panicked
			}()
			want := from
			is := slices.Contains(standing.Arrows(), [2]standing.State{from, to})
			if is {
				want = to
			}
			if is != (m.Token == 1) || m.State != want {
				t.Errorf("from %v to %v: an arrow %v, and it is %v", from, to, is, m.State)
			}
		}
	}
}
