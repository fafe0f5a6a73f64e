package plain

import "testing"

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
