//go:build linux

package rules

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// eachGoFile calls do with each Go file of the project, as a path from its root, and its content.
func eachGoFile(t *testing.T, do func(path, content string)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		content, err := os.ReadFile(path)
		do(path, string(content))
		n++
		return err
	})
	if err != nil || n < 100 {
		t.Fatalf("%d files, %v", n, err)
	}
}

// TestWords: no Go file has a word for which the field has a better one. They are in a file of
// their own, so that this one has none of them.
func TestWords(t *testing.T) {
	words := strings.Fields(etcdtest.Read(t, "test/rules/words.txt"))
	if len(words) < 5 {
		t.Fatalf("words: %q", words)
	}
	forbidden := regexp.MustCompile(`(?i)` + strings.Join(words, "|"))
	eachGoFile(t, func(path, content string) {
		for i, line := range strings.Split(content, "\n") {
			if word := forbidden.FindString(line); word != "" {
				t.Errorf("%s:%d: %q", path, i+1, word)
			}
		}
	})
}

// TestPhrases: no Go file, and neither of the two documents that a user of the keys in etcd relies
// on, has a phrase for which there is a plainer one. They are regular expressions, in a file of
// their own.
func TestPhrases(t *testing.T) {
	list := strings.Split(strings.TrimSpace(etcdtest.Read(t, "test/rules/phrases.txt")), "\n")
	if len(list) < 5 {
		t.Fatalf("phrases: %q", list)
	}
	avoided := regexp.MustCompile(`(?i)` + strings.Join(list, "|"))
	check := func(path, content string) {
		lines := strings.Split(content, "\n")
		for i, line := range lines {
			if phrase := avoided.FindString(line); phrase != "" {
				t.Errorf("%s:%d: %q", path, i+1, phrase)
				continue
			}
			if i == len(lines)-1 {
				continue
			}
			// A phrase may begin at the end of a line.
			goesOn := strings.TrimPrefix(strings.TrimSpace(lines[i+1]), "// ")
			if at := avoided.FindStringIndex(line + " " + goesOn); at != nil && at[0] < len(line) && at[1] > len(line) {
				t.Errorf("%s:%d: %q", path, i+1, (line + " " + goesOn)[at[0]:at[1]])
			}
		}
	}
	eachGoFile(t, check)
	for _, document := range []string{"docs/stability.md", "docs/protocol.md"} {
		check(document, etcdtest.Read(t, document))
	}
}

var (
	addressAlone = regexp.MustCompile(`^\s*(//)?\s*https?://\S+$`)
	boxes        = regexp.MustCompile("[\u2500-\u25ff]")
)

// TestCommentsAreNarrow: a comment ends in column 100 at the latest, where a tab counts as 4, and
// another character as its bytes. Drawings are in ASCII. An address alone may be longer.
func TestCommentsAreNarrow(t *testing.T) {
	eachGoFile(t, func(path, content string) {
		for n, line := range commentLines(t, path, content) {
			if len(strings.ReplaceAll(line, "\t", "    ")) > widest && !addressAlone.MatchString(line) {
				t.Errorf("%s:%d: more than %d columns", path, n, widest)
			}
			if boxes.MatchString(line) {
				t.Errorf("%s:%d: a drawing that is not in ASCII", path, n)
			}
		}
	})
}

// commentLines returns the lines of a file that have a comment, by their numbers.
func commentLines(t *testing.T, path, content string) map[int]string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, content, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	lines, found := strings.Split(content, "\n"), make(map[int]string)
	for _, group := range file.Comments {
		for _, comment := range group.List {
			first := files.Position(comment.Pos()).Line
			for n := range strings.Split(comment.Text, "\n") {
				found[first+n] = lines[first-1+n]
			}
		}
	}
	return found
}
