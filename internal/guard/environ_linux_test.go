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
		if socket, ok := numberOf(guards, socketNumber); socket != 200 || !ok {
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
	if _, ok := numberOf([]string{"A=1"}, socketNumber); ok {
		t.Error("a number out of nothing")
	}
	if _, ok := numberOf(guardEnvironment([]string{slackNumber + "5"}, 200), slackNumber); ok {
		t.Error("a number that was there before")
	}
}

// TestEnvironmentOfTheCommand: what is given replaces what was there, and a name alone takes it
// away.
func TestEnvironmentOfTheCommand(t *testing.T) {
	base := []string{"A=1", "AB=2", "B=3", "ETCDCTL_PASSWORD=x", "WATCHDOG_PID=7"}
	if got := environment(base, []string{"A", "B=4", "C"}); !slices.Equal(got, []string{"AB=2", "B=4"}) {
		t.Errorf("it has %q", got)
	}
}
