//go:build linux

package rules

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// widest is how many columns a line of prose may have.
const widest = 100

// TestProseIsNarrow: prose in documents has at most 100 columns. Tables, code, what programs
// generate, and a link alone on its line may be wider. The comments of .ci/run are prose.
func TestProseIsNarrow(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil || len(files) < 5 {
		t.Fatalf("documents: %q, %v", files, err)
	}
	files = append(files, "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
	for _, file := range files {
		for _, line := range tooWide(etcdtest.Read(t, file)) {
			t.Errorf("%s: more than %d columns: %s", file, widest, line)
		}
	}
	for line := range strings.Lines(etcdtest.Read(t, ".ci/run")) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "#") && len(line) > widest {
			t.Errorf(".ci/run: more than %d columns: %s", widest, line)
		}
	}
}

// TestTooWide: what is prose is told from what is not.
func TestTooWide(t *testing.T) {
	long := strings.Repeat("word ", 25)
	for text, want := range map[string]int{
		long:                          1,
		"- " + long:                   1,
		"- item\n  " + long:           1,
		"text\n    " + long:           1, // goes on with the paragraph
		"## " + long:                  1,
		strings.Repeat("ä", widest):   0,
		strings.Repeat("ä", widest+1): 1,
		"| " + long + "|":             0,
		"```sh\n" + long + "\n```\n":  0,
		"```sh\n```\n" + long:         1,
		"text\n\n    " + long:         0,
		"<!-- x: y -->\n" + long + "\n<!-- end -->":    0,
		"<!-- x: y -->\n<!-- end -->\n" + long:         1,
		"- [name](" + strings.Repeat("x", 100) + "),":  0,
		"see [name](" + strings.Repeat("x", 100) + ")": 1,
	} {
		if got := tooWide(text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
}

var linkAlone = regexp.MustCompile(`^\s*(- |\d+\. )?(\[[^\]]*\]\([^)]*\)|<?https?://\S+)[.,;:]?$`)

// tooWide returns the lines of prose in a document that have too many columns.
func tooWide(document string) (wide []string) {
	fenced, generated, prose := false, false, false
	for line := range strings.Lines(document) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			fenced, prose = !fenced, false
		case strings.HasPrefix(line, "<!--"):
			generated, prose = !strings.HasPrefix(line, "<!-- end"), false
		case fenced, generated:
		case line == "":
			prose = false
		case strings.HasPrefix(line, "|"), !prose && strings.HasPrefix(line, "    "):
		default:
			prose = true
			if utf8.RuneCountInString(line) > widest && !linkAlone.MatchString(line) {
				wide = append(wide, line)
			}
		}
	}
	return wide
}
