package plain

import (
	"os/exec"
	"testing"
)

func TestPlain(t *testing.T) {
	for s, want := range map[string][2]string{
		"a/b":        {"a/b", "a/b"},
		"a b":        {"a b", `"a b"`},
		"":           {"", `""`},
		"a\x1b[2J":   {"a [2J", `"a\x1b[2J"`},
		"a\u009bb":   {"a b", `"a\u009bb"`},
		"a\u202eb\n": {"a b", `"a\u202eb\n"`},
		"a\xffb":     {"a\ufffdb", `"a\xffb"`},
		"ä":          {"ä", "ä"},
	} {
		if line, word := Line(s), Word(s); line != want[0] || word != want[1] {
			t.Errorf("%q: %q and %q, want %q and %q", s, line, word, want[0], want[1])
		}
	}
}

// TestReason: the errors are those of gRPC itself.
func TestReason(t *testing.T) {
	for s, want := range map[string]string{
		`no answer: rpc error: code = Unavailable desc = last connection error: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:2379: connect: connection refused"`: "no answer: dial tcp 127.0.0.1:2379: connect: connection refused",
		`connection error: desc = "transport: authentication handshake failed: tls: bad \"name\"" (later)`:                                                                                       `authentication handshake failed: tls: bad "name" (later)`,
		`connection error: desc = "error reading server preface: EOF"`:                                                                                                                           "error reading server preface: EOF",
		"rpc error: code = Unavailable desc = etcdserver: leader changed":                                                                                                                        "etcdserver: leader changed",
		`connection error: desc = "a\x1b[2J"`:                                                                                                                                                    "a\x1b[2J",
		`connection error: desc = "cut off`:                                                                                                                                                      `connection error: desc = "cut off`,
		"a command":                                                                                                                                                                              "a command",
	} {
		if got := Reason(s); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
}

// TestShell: a shell gets every word back as it was, and a terminal nothing that controls it.
func TestShell(t *testing.T) {
	for s, want := range map[string]string{
		"/a/b":           "/a/b",
		"":               "''",
		"a b":            "'a b'",
		"it's":           `'it'\''s'`,
		"ä b":            "'ä b'",
		"a\x1b[2J'b\\":   `$'a\033[2J\047b\134'`,
		"a\nb":           `$'a\012b'`,
		"a\u009bb\u202e": `$'a\302\233b\342\200\256'`,
		"a\xff9":         `$'a\3779'`,
	} {
		if got := Shell(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
		if out, err := exec.Command("bash", "-c", "printf %s "+want).Output(); err != nil || string(out) != s {
			t.Errorf("bash takes %s for %q, %v", want, out, err)
		}
	}
}
