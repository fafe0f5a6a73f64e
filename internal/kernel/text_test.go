package kernel

import (
	"slices"
	"strings"
	"testing"
)

// TestLikeStrings: the cuts are those of package strings.
func TestLikeStrings(t *testing.T) {
	for _, s := range []string{"", " ", "a", "a b", " a\tb\n", "\n\na", "S 1 2", "a=b=c", "=", "a=", "0::/x"} {
		if got, want := Fields(s), strings.Fields(s); !slices.Equal(got, want) {
			t.Errorf("Fields(%q) = %q, want %q", s, got, want)
		}
		before, after, found := Cut(s, '=')
		if b, a, f := strings.Cut(s, "="); b != before || a != after || f != found {
			t.Errorf("Cut(%q) = %q, %q, %v", s, before, after, found)
		}
		before, after, found = CutLast(s, '=')
		if i := strings.LastIndexByte(s, '='); found != (i >= 0) || found && (before != s[:i] || after != s[i+1:]) || !found && before != s {
			t.Errorf("CutLast(%q) = %q, %q, %v", s, before, after, found)
		}
		after, found = CutPrefix(s, "0::")
		if a, f := strings.CutPrefix(s, "0::"); a != after || f != found {
			t.Errorf("CutPrefix(%q) = %q, %v", s, after, found)
		}
	}
}
