package etcdtest

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
)

// Missing skips a test because this machine lacks something. If the variable CI is "true" it fails
// the test: CI has to install it. See [Skip].
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s", what)
	}
	Skip(t, "missing: "+what)
}

// Skip skips a test and counts it. [Runner.Run] prints each reason with its count at the end, so
// give equal reasons equal words. The go command shows that with -v, and without any package in its
// arguments.
func Skip(t testing.TB, reason string) {
	t.Helper()
	skips.add(reason)
	t.Skip(reason)
}

// skips are those of this process.
var skips tally

// tally counts reasons.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *tally) add(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[reason]++
}

// print writes a line for each reason, the most frequent one first.
func (s *tally) print(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reasons := slices.SortedFunc(maps.Keys(s.counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.counts[b], s.counts[a]), cmp.Compare(a, b))
	})
	for _, reason := range reasons {
		fmt.Fprintf(w, "etcdtest: %d skipped: %s\n", s.counts[reason], reason)
	}
}
