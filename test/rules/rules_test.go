//go:build linux

package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// goList returns what go list prints, as words.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

const ours = "github.com/etcdlock/etcdlock/"

// TestDependencies: the heavy things reach neither the library nor etcdlocker.
func TestDependencies(t *testing.T) {
	for _, dep := range goList(t, "-deps", "-f", "{{if .Module}}{{.ImportPath}}{{end}}", ".") {
		if strings.Contains(dep, "pflag") || strings.Contains(dep, "cobra") || strings.Contains(dep, "etcd/server") {
			t.Errorf("the library imports %s", dep)
		}
	}
	for _, dep := range goList(t, "-deps", "./cmd/etcdlocker") {
		if strings.Contains(dep, "etcd/server") || strings.Contains(dep, "spf13/cobra") {
			t.Errorf("etcdlocker imports %s", dep)
		}
	}
	for _, direct := range goList(t, "-f", `{{join .Imports "\n"}}`, ".") {
		if first, _, _ := strings.Cut(direct, "/"); strings.Contains(first, ".") &&
			!strings.HasPrefix(direct, "go.etcd.io/etcd/") && !strings.HasPrefix(direct, "google.golang.org/grpc") &&
			!strings.HasPrefix(direct, "golang.org/x/sys") && !strings.HasPrefix(direct, "github.com/etcdlock/etcdlock/internal/") {
			t.Errorf("the library imports %s", direct)
		}
	}
	const testing = ours + "internal/etcdtest"
	for _, user := range goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{if eq . "`+testing+`"}}{{$p}}{{end}}{{end}}`, "./...") {
		if !strings.HasPrefix(user, ours+"test/") {
			t.Errorf("%s imports %s outside of its tests", user, testing)
		}
	}
}

// TestGuardIsLight: it needs little of the standard library and nothing else, and is entered before
// the packages of etcdlocker's that cost most are initialised.
func TestGuardIsLight(t *testing.T) {
	for _, dep := range goList(t, "-deps", "./internal/early") {
		if first, _, _ := strings.Cut(dep, "/"); strings.Contains(first, ".") && !strings.HasPrefix(dep, ours) || dep == "unicode" {
			t.Errorf("the guard imports %s", dep)
		}
	}
	for _, user := range goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{if eq . "`+ours+`internal/early"}}{{$p}}{{end}}{{end}}`, "./...") {
		if user != ours+"cmd/etcdlocker" {
			t.Errorf("%s imports internal/early, which starts processes", user)
		}
	}
	cmd := exec.Command(filepath.Join(programs, "etcdlocker"))
	cmd.Args = []string{"etcdlocker-guard", "true"}
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	trace, _ := cmd.CombinedOutput() // it ends at once: it has no channel
	if !strings.Contains(string(trace), "init os @") {
		t.Fatalf("no trace: %s", trace)
	}
	for _, late := range []string{"unicode", "reflect", "crypto/tls", "google.golang.org/grpc", "google.golang.org/protobuf/proto"} {
		if strings.Contains(string(trace), "init "+late+" @") {
			t.Errorf("%s is initialised before the guard is entered", late)
		}
	}
}

func TestNoReplaceInGoMod(t *testing.T) {
	if strings.Contains(etcdtest.Read(t, "go.mod"), "replace") {
		t.Error("go.mod replaces modules: go install of a version would fail")
	}
}

// TestRequirementsAreDocumented: the document of dependencies names each requirement of go.mod, in
// the group that the comment above its block says.
func TestRequirementsAreDocumented(t *testing.T) {
	mod := etcdtest.Read(t, "go.mod")
	groups := map[string]string{"The library.": "library", "The commands.": "commands", "Tests alone.": "tests"}
	documented := map[string]string{}
	for line := range strings.Lines(etcdtest.Read(t, "docs/dependencies.md")) {
		if cells := strings.Split(line, " | "); len(cells) == 4 {
			for name := range strings.SplitSeq(strings.TrimPrefix(cells[0], "| "), ", ") {
				documented[name] = cells[1]
			}
		}
	}
	found := 0
	for _, block := range regexp.MustCompile(`(?s)// ([^\n]*)\nrequire \((.*?)\)`).FindAllStringSubmatch(mod, -1) {
		for line := range strings.Lines(strings.TrimSpace(block[2])) {
			found++
			name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
			if want := groups[block[1]]; want == "" || documented[name] != want {
				t.Errorf("go.mod has %s below %q, and docs/dependencies.md in the group %q", name, block[1], documented[name])
			}
		}
	}
	if direct := strings.Count(mod, "\n\t") - strings.Count(mod, "// indirect"); found != direct {
		t.Errorf("%d of %d direct requirements are in blocks with a comment", found, direct)
	}
}

// TestGoVersions: both modules name the same versions of Go, and the workflow runs with these.
func TestGoVersions(t *testing.T) {
	lines := regexp.MustCompile(`(?m)^(go|toolchain) .*$`)
	ours := lines.FindAllString(etcdtest.Read(t, "go.mod"), -1)
	bench := lines.FindAllString(etcdtest.Read(t, "bench/go.mod"), -1)
	if len(ours) != 2 || !slices.Equal(ours, bench) {
		t.Fatalf("go.mod: %q, bench/go.mod: %q", ours, bench)
	}
	oldest, current := strings.TrimPrefix(ours[0], "go "), strings.TrimPrefix(ours[1], "toolchain go")
	if matrix := fmt.Sprintf("go: ['%s', '%s']", oldest, current); !strings.Contains(etcdtest.Read(t, ".github/workflows/ci.yml"), matrix) {
		t.Errorf("the workflow does not run with %s", matrix)
	}
}

// TestHelpNamesEveryOption holds the hand-written help against the options that are accepted.
func TestHelpNamesEveryOption(t *testing.T) {
	help := help(t, "etcdlocker")
	man := strings.ReplaceAll(etcdtest.Read(t, "docs/man/etcdlocker.1"), `\-`, "-")
	source := etcdtest.Read(t, "cmd/etcdlocker/options.go") + etcdtest.Read(t, "internal/endpoint/options.go")
	found := 0
	for line := range strings.Lines(source) {
		if call, ok := strings.CutPrefix(strings.TrimSpace(line), "f."); ok && (strings.HasPrefix(call, "String") || strings.HasPrefix(call, "Bool")) {
			name := strings.Split(call, `"`)[1]
			if name == "unguarded" {
				continue // for measurements alone
			}
			found++
			if !strings.Contains(help, "--"+name) {
				t.Errorf("--help does not name --%s", name)
			}
			if !strings.Contains(man, "--"+name) {
				t.Errorf("the man page does not name --%s", name)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d options found in the source", found)
	}
}

// controls are the commands of etcdlockctl that have options, and none.
var controls = [][]string{nil, {"serve"}, {"break"}, {"list"}, {"show"}, {"watch"}, {"pause"}, {"resume"}}

// TestControlManNamesEveryOption holds the man page of etcdlockctl against its help.
func TestControlManNamesEveryOption(t *testing.T) {
	man := strings.ReplaceAll(etcdtest.Read(t, "docs/man/etcdlockctl.1"), `\-`, "-")
	for _, command := range controls {
		help := help(t, "etcdlockctl", command...)
		options := regexp.MustCompile(`(?m)^ +(-., )?(--[a-z-]+)`).FindAllStringSubmatch(help, -1)
		if len(options) < 2 {
			t.Errorf("only %d options found in the help: %s", len(options), help)
		}
		for _, option := range options {
			if !strings.Contains(man, option[1]+option[2]) {
				t.Errorf("the man page of etcdlockctl does not name %s%s", option[1], option[2])
			}
		}
	}
}

// TestHelpFits: the help of both commands fits into a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	helps := []string{help(t, "etcdlocker")}
	for _, command := range append(controls, []string{"roles"}) {
		helps = append(helps, help(t, "etcdlockctl", command...))
	}
	for line := range strings.Lines(strings.Join(helps, "")) {
		if line = strings.TrimSuffix(line, "\n"); len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// TestSkipsAreCounted: tests are skipped with etcdtest.Missing and etcdtest.Skip alone, in packages
// that print the counts.
func TestSkipsAreCounted(t *testing.T) {
	skip := regexp.MustCompile(`\b(t|tb|b)\.(Skip|Skipf|SkipNow)\(`)
	counted := regexp.MustCompile(`\betcdtest\.(Missing|Skip)\(`)
	hook := regexp.MustCompile(`\betcdtest\.Main\(m\)`)
	counting, hooked := map[string]bool{}, map[string]bool{}
	eachGoFile(t, func(name, source string) {
		dir := filepath.Dir(name)
		if dir == "internal/etcdtest" {
			return
		}
		counting[dir] = counting[dir] || counted.MatchString(source)
		hooked[dir] = hooked[dir] || hook.MatchString(source)
		if found := skip.FindString(source); found != "" {
			t.Errorf("%s calls %s): call etcdtest.Missing or etcdtest.Skip", name, found)
		}
	})
	for dir, counts := range counting {
		if counts && !hooked[dir] {
			t.Errorf("%s skips tests, and its TestMain does not call etcdtest.Main", dir)
		}
	}
	if !counting["test/scenarios"] || !counting["internal/cgroup"] {
		t.Errorf("counted skips were found in %v", counting)
	}
}

// TestManSaysWhatHelpSays: each paragraph and each option of the help of etcdlocker is in its man
// page, word by word.
func TestManSaysWhatHelpSays(t *testing.T) {
	words := func(text string) string { return strings.ToLower(strings.Join(strings.Fields(text), " ")) }
	marks := regexp.MustCompile(`\\&|\\f[BIR]|(?m)^\.(TP$|B )`)
	man := words(marks.ReplaceAllString(strings.ReplaceAll(etcdtest.Read(t, "docs/man/etcdlocker.1"), `\-`, "-"), ""))
	_, says, _ := strings.Cut(help(t, "etcdlocker"), "\n\n") // after the first line
	parts := regexp.MustCompile(`\n\n|\n {2,8}-|:\n|(?m)^Signs of life, `).Split(says, -1)
	if len(parts) < 40 {
		t.Errorf("only %d paragraphs and options are in the help", len(parts))
	}
	for _, part := range parts {
		if part = words(part); strings.Contains(part, " ") && part != "exit codes" && !strings.Contains(man, part) {
			t.Errorf("the man page does not say: %s", part)
		}
	}
}

// TestLockedIsNamed: a function that is called with a mutex locked says so at the end of its name.
func TestLockedIsNamed(t *testing.T) {
	says := regexp.MustCompile(`(^\w+|[.;:] It) is called with (\w+\.)*mu locked`)
	found := 0
	eachGoFile(t, func(name, source string) {
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || !says.MatchString(strings.Join(strings.Fields(f.Doc.Text()), " ")) {
				continue
			}
			if found++; !strings.HasSuffix(f.Name.Name, "Locked") {
				t.Errorf("%s: %s is called with a mutex locked, and is not called %sLocked", name, f.Name.Name, f.Name.Name)
			}
		}
	})
	if found < 10 {
		t.Errorf("only %d such functions were found", found)
	}
}

// TestFuzzTargetsRun: .ci/run names each fuzz target with its package, and nothing else. Of a
// target that does not exist `go test -fuzz` says no more than a warning.
func TestFuzzTargetsRun(t *testing.T) {
	target := regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)
	var inTree []string
	eachGoFile(t, func(name, source string) {
		for _, found := range target.FindAllStringSubmatch(source, -1) {
			inTree = append(inTree, "fuzz ./"+filepath.Dir(name)+" "+found[1])
		}
	})
	var run []string
	for _, line := range regexp.MustCompile(`(?m)^(fuzz \./.*) [1-9]\d*$`).FindAllStringSubmatch(etcdtest.Read(t, ".ci/run"), -1) {
		run = append(run, line[1])
	}
	slices.Sort(inTree)
	if slices.Sort(run); len(inTree) == 0 || !slices.Equal(inTree, run) {
		t.Errorf(".ci/run has\n%s\nand the tree\n%s", strings.Join(run, "\n"), strings.Join(inTree, "\n"))
	}
}
