package guard

import (
	"slices"
	"strings"
	"testing"
)

// TestEnvironment: the guard's own variables are not the command's, and the command gets its own
// back.
func TestEnvironment(t *testing.T) {
	for _, env := range [][]string{{"A=1", "B="}, {"GOMAXPROCS=4", "A=1"}, {"A=1", "GOMAXPROCS=1"}, {"GOMAXPROCS="},
		{"GOGC=off", "GOMAXPROCS=4", "GODEBUG=gctrace=1", "A=1", "GOMEMLIMIT=1GiB"}, {"GODEBUG="}} {
		guards := guardEnvironment(env, 200)
		if socket, ok := socketOf(guards); socket != 200 || !ok {
			t.Errorf("%q: the socket is %d, %v", guards, socket, ok)
		}
		if !slices.Contains(guards, singleProcessor) {
			t.Errorf("%q: not on one processor", guards)
		}
		for _, kv := range guards {
			for _, name := range steering {
				if strings.HasPrefix(kv, name) {
					t.Errorf("the guard is steered by %q", kv)
				}
			}
		}
		if got := commandEnvironment(guards); !slices.Equal(got, env) {
			t.Errorf("%q came back as %q", env, got)
		}
	}
	if _, ok := socketOf([]string{"A=1"}); ok {
		t.Error("a socket out of nothing")
	}
}
