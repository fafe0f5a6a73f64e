//go:build linux

package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestKeysOfParallelTests: tests that run at the same time on the server that they share have keys
// of their own.
func TestKeysOfParallelTests(t *testing.T) {
	t.Parallel()
	packages := map[string]map[string][]string{} // directory, key: the tests that name it
	eachGoFile(t, func(path, content string) {
		if !strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, content, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Body == nil || !selects(f, "Shared") || !selects(f, "Parallel") {
				continue
			}
			dir := filepath.Dir(path)
			if packages[dir] == nil {
				packages[dir] = map[string][]string{}
			}
			for key := range keysIn(f) {
				packages[dir][key] = append(packages[dir][key], f.Name.Name)
			}
		}
	})
	if len(packages) < 2 {
		t.Errorf("parallel tests on a shared server were found in %d packages", len(packages))
	}
	for dir, users := range packages {
		for key, tests := range users {
			if len(tests) > 1 {
				t.Errorf("%s: %q is the key of %s, which run at the same time on one server", dir, key, strings.Join(tests, " and "))
			}
		}
	}
}

// selects reports whether a function uses a field or a function of that name.
func selects(f *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		found = found || ok && s.Sel.Name == name
		return true
	})
	return found
}

// keysIn returns the texts in a function that look like keys, and not like parts of something
// longer.
func keysIn(f *ast.FuncDecl) map[string]bool {
	keys := map[string]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			return n.Op != token.ADD
		case *ast.BasicLit:
			if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && len(text) > 1 && text[0] == '/' {
				keys[text] = true
			}
		}
		return true
	})
	return keys
}
