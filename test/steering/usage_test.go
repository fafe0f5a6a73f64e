//go:build linux

package steering

import (
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/test/programs"
)

func TestControlUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"no-such-command"}, {"--no-such-flag"}, {"serve", "--no-such-flag"}, {"serve", "argument"}, {"serve", "--dir", ""}, {"serve", "--idle-exit", "-1s"},
		{"list", "a", "b"}, {"list", "-o", "yaml"}, {"list", "--sort", "age"}, {"list", "-0"}, {"list", "--older-than", "-1s"}, {"list", "--timeout", "0s"},
		{"list", "--cacert", "/none"}, {"show"}, {"show", ""}, {"show", "/x", "-o", "yaml"}, {"watch", "a", "b"}, {"watch", "-o", "yaml"}, {"watch", "--event", "gone"}, {"watch", "--count", "-1"}, {"roles"}} {
		p := programs.Start(t, nil, "etcdlockctl", args...)
		if code := p.Code(); code != 64 || !strings.HasPrefix(p.Stderr.String(), "etcdlockctl: error: ") {
			t.Errorf("%v: exit code %d, %q", args, code, p.Stderr)
		}
	}
	for _, args := range [][]string{{"wacth"}, {"wacth", "--help"}, {"help", "wacth"}} {
		if p := programs.Start(t, nil, "etcdlockctl", args...); p.Code() != 64 || !strings.Contains(p.Stderr.String(), "hint: is etcdlockctl watch meant?") {
			t.Errorf("%q: exit code %d, %q", args, p.Code(), p.Stderr)
		}
	}
	for hint, args := range map[string][]string{
		"a KEY that begins with - goes after --, as in etcdlockctl show -- KEY\n":       {"show", "-dash"},
		"a PREFIX that begins with - goes after --, as in etcdlockctl list -- PREFIX\n": {"list", "--a b"},
		"hint: etcdlockctl serve --help lists the options\n":                            {"serve", "--none"},
		"etcdlockctl: error: unknown command \"unlock\" (see":                           {"unlock", "--embedded", "/x"},
		"an option stands behind its command, as in etcdlockctl list --embedded\n":      {"--embedded", "list"},
		"a number counts seconds, as in 90; or add a unit, as in 90s":                   {"pause", "/x", "--for", "abc"},
	} {
		if p := programs.Start(t, nil, "etcdlockctl", args...); p.Code() != 64 || !strings.Contains(p.Stderr.String(), hint) {
			t.Errorf("%q: exit code %d, %q, not %s", args, p.Code(), p.Stderr, hint)
		}
	}
	if p := programs.Start(t, nil, "etcdlockctl", "-v"); p.Code() != 64 || p.Stdout.String() != "" {
		t.Errorf("-v without a command: exit code %d, %q", p.Code(), p.Stdout)
	}
	if p := programs.Start(t, nil, "etcdlockctl"); p.Code() != 0 || !strings.Contains(p.Stdout.String(), "serve") {
		t.Errorf("without a word: exit code %d, %q", p.Code(), p.Stdout)
	}
}
