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

// library lists the packages of the library, each with those below it that it may import.
var library = map[string][]string{
	".":                  {"internal/boottime", "internal/locker", "internal/session", "internal/holding", "internal/lease", "internal/message", "internal/mode", "internal/record", "internal/wire"},
	"admin":              {"internal/follow", "internal/line", "internal/lease", "internal/mode", "internal/record", "internal/retry", "internal/wire"},
	"internal/expiry":    nil,
	"internal/follow":    {"internal/expiry", "internal/line", "internal/onestream", "internal/retry", "internal/wire"},
	"internal/line":      {"internal/mode", "internal/oplimit", "internal/record", "internal/wire"},
	"internal/locker":    {"internal/validity", "internal/mode", "internal/record", "internal/session", "internal/holding", "internal/debts", "internal/queue", "internal/lease", "internal/retry", "internal/message", "internal/wire"},
	"internal/session":   {"internal/holding", "internal/debts", "internal/queue", "internal/lease", "internal/watch", "internal/keepalive", "internal/retry"},
	"internal/holding":   {"internal/debts", "internal/queue", "internal/lease", "internal/retry", "internal/perclient", "internal/message", "internal/mode", "internal/record", "internal/wire"},
	"internal/debts":     {"internal/boottime", "internal/lease", "internal/retry"},
	"internal/queue":     {"internal/boottime", "internal/asking", "internal/translate", "internal/protocol", "internal/standing", "internal/lease", "internal/watch", "internal/retry", "internal/message", "internal/wire"},
	"internal/asking":    {"internal/translate", "internal/lease", "internal/retry", "internal/message", "internal/mode", "internal/wire"},
	"internal/translate": {"internal/message", "internal/mode", "internal/record", "internal/wire"},
	"internal/protocol":  {"internal/removal", "internal/standing", "internal/position", "internal/message"},
	"internal/removal":   {"internal/standing", "internal/orphan", "internal/message"},
	"internal/standing":  {"internal/position", "internal/message"},
	"internal/position":  {"internal/message"},
	"internal/orphan":    {"internal/message"},
	"internal/message":   nil,
	"internal/lease":     {"internal/boottime", "internal/notices", "internal/validity", "internal/batch", "internal/oplimit", "internal/places", "internal/users", "internal/watch", "internal/keepalive", "internal/retry", "internal/wire"},
	"internal/batch":     {"internal/oplimit", "internal/retry", "internal/wire"},
	"internal/watch":     {"internal/retry", "internal/perclient"},
	"internal/keepalive": {"internal/boottime", "internal/retry", "internal/perclient"},
	"internal/retry":     nil,
	"internal/perclient": nil,
	"internal/oplimit":   nil,
	"internal/users":     nil,
	"internal/places":    nil,
	"internal/wire":      {"internal/mode", "internal/record"},
	"internal/mode":      nil,
	"internal/record":    nil,
	"internal/notices":   nil,
	"internal/validity":  nil,
	"internal/boottime":  {"internal/kernel"},
	"internal/kernel":    nil,
}

// Bounds of a package of the library.
const (
	mostLines   = 1200
	mostOfWire  = 1250 // lines of what has every transaction
	mostOfRoot  = 1000 // lines of the package that users import
	mostMethods = 25   // of one type
	mostOfAFunc = 60   // lines
)

// TestShape: the packages of the library stay small, and import each other in one direction. The
// map has all of them.
func TestShape(t *testing.T) {
	for _, dep := range goList(t, "-deps", ".") {
		dir, within := strings.CutPrefix(dep, ours)
		if _, listed := library[dir]; within && !listed {
			t.Errorf("%s is a package of the library, and has no bounds here", dir)
		}
	}
	for dir, below := range library {
		files := token.NewFileSet()
		names, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: no files: %v", dir, err)
		}
		lines, methods := 0, make(map[string]int)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(files, name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			lines += files.File(file.Pos()).LineCount()
			checkImports(t, dir, below, file)
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok {
					methods[receiver(f)]++
					if n := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1; n > mostOfAFunc {
						t.Errorf("%s: %s has %d lines", name, f.Name.Name, n)
					}
				}
			}
		}
		most := map[string]int{".": mostOfRoot, "internal/wire": mostOfWire}[dir]
		if most == 0 {
			most = mostLines
		}
		if lines > most {
			t.Errorf("%s has %d lines", dir, lines)
		}
		for name, n := range methods {
			if name != "" && n > mostMethods {
				t.Errorf("%s: %s has %d methods", dir, name, n)
			}
		}
	}
}

// checkImports holds what a file of the library imports against what its package may.
func checkImports(t *testing.T, dir string, below []string, file *ast.File) {
	t.Helper()
	for _, imported := range file.Imports {
		path, within := strings.CutPrefix(strings.Trim(imported.Path.Value, `"`), ours)
		_, listed := library[path]
		if within && listed && !slices.Contains(below, path) {
			t.Errorf("%s imports %s", dir, path)
		}
	}
}

// receiver returns the name of the type that a method belongs to, "" for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr: // of several type parameters
		t = generic.X
	}
	name, _ := t.(*ast.Ident)
	return name.Name
}

// TestReceiver: a method belongs to its type, also to one with type parameters.
func TestReceiver(t *testing.T) {
	source := `package p
func (x T) f()        {}
func (x *T) f()       {}
func (x T[A]) f()     {}
func (x *T[A, B]) f() {}`
	file, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
	if err != nil || len(file.Decls) != 4 {
		t.Fatalf("%v, %v", file, err)
	}
	for i, decl := range file.Decls {
		if name := receiver(decl.(*ast.FuncDecl)); name != "T" {
			t.Errorf("%d: %q", i, name)
		}
	}
}
