package marks

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	const before = "a\n<!-- x: one -->\nold\n<!-- end -->\nb\n<!-- x: two -->\n<!-- end -->\n<!-- y: one -->\nkept\n<!-- end -->\n"
	const want = "a\n<!-- x: one -->\n1\n<!-- end -->\nb\n<!-- x: two -->\n2\n<!-- end -->\n<!-- y: one -->\nkept\n<!-- end -->\n"
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(file, "x", map[string]string{"one": "1\n", "two": "2\n", "three": "3\n"}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	if Replace(file, "z", map[string]string{"one": "1\n"}) == nil {
		t.Error("a file without marks is no error")
	}
}
