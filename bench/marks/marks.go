// Package marks replaces the tables that programs keep in documents.
package marks

import (
	"fmt"
	"os"
	"strings"
)

// Files are those of a flag that can be given several times.
type Files []string

func (f *Files) String() string     { return strings.Join(*f, ", ") }
func (f *Files) Set(s string) error { *f = append(*f, s); return nil }

const end = "<!-- end -->"

// Replace puts texts into a file, each between <!-- KIND: NAME --> and <!-- end -->. One mark at
// least must be there.
func Replace(file, kind string, texts map[string]string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, found := string(content), false
	for name, replacement := range texts {
		mark := fmt.Sprintf("<!-- %s: %s -->\n", kind, name)
		before, rest, ok := strings.Cut(text, mark)
		_, after, ended := strings.Cut(rest, end)
		if ok && ended {
			text, found = before+mark+replacement+end+after, true
		}
	}
	if !found {
		return fmt.Errorf("%s has no marks for tables", file)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
