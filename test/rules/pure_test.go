//go:build linux

package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pure are the packages that the machine of a place in line is made of.
var pure = []string{"protocol", "standing", "removal", "position", "orphan", "message"}

// impure are packages of the standard library that bring clocks, chance, goroutines and files.
var impure = []string{"sync", "sync/atomic", "time", "context", "math/rand", "math/rand/v2", "crypto/rand", "os", "net", "runtime", "unsafe"}

// TestPure: the machine needs neither etcd's client nor grpc, and has no clock, no chance, no
// goroutine and no channel. The same inputs bring the same effects.
func TestPure(t *testing.T) {
	for _, name := range pure {
		dir := "internal/" + name
		for _, dep := range goList(t, "-deps", "./"+dir) {
			first, _, _ := strings.Cut(dep, "/")
			if strings.Contains(first, ".") && !isPure(dep) {
				t.Errorf("%s needs %s", dir, dep)
			}
		}
		for _, direct := range goList(t, "-f", `{{join .Imports "\n"}}`, "./"+dir) {
			if slices.Contains(impure, direct) {
				t.Errorf("%s imports %s", dir, direct)
			}
		}
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files: %v", dir, err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				checkIsPure(t, file)
			}
		}
	}
}

// isPure reports whether a package is one of those that are pure.
func isPure(path string) bool {
	name, ok := strings.CutPrefix(path, ours+"internal/")
	return ok && slices.Contains(pure, name)
}

// checkIsPure looks in a file for what starts a goroutine, or has a channel.
func checkIsPure(t *testing.T, name string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "a go statement"
		case *ast.ChanType, *ast.SendStmt, *ast.SelectStmt:
			what = "a channel"
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				what = "a channel"
			}
		}
		if what != "" {
			t.Errorf("%v: %s", files.Position(n.Pos()), what)
		}
		return true
	})
}
