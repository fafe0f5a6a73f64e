//go:build linux

package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = ".."
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

// TestGuardIsLight: it needs little of the standard library and nothing else, and is entered before the packages of
// etcdlocker's that cost most are initialised.
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
	cmd.Env = environment("GODEBUG=inittrace=1")
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
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mod), "replace") {
		t.Error("go.mod replaces modules: go install of a version would fail")
	}
}

// TestHelpNamesEveryOption holds the hand-written help against the options that are accepted.
func TestHelpNamesEveryOption(t *testing.T) {
	p := start(t, nil, "etcdlocker", "--help")
	p.code()
	source, err := os.ReadFile("../cmd/etcdlocker/options.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("../internal/endpoint/options.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, line := range strings.Split(string(source)+string(more), "\n") {
		if call, ok := strings.CutPrefix(strings.TrimSpace(line), "f."); ok && (strings.HasPrefix(call, "String") || strings.HasPrefix(call, "Bool")) {
			name := strings.Split(call, `"`)[1]
			if name == "unguarded" {
				continue // for measurements alone
			}
			found++
			if !strings.Contains(p.stdout.String(), "--"+name) {
				t.Errorf("--help does not name --%s", name)
			}
			man, err := os.ReadFile("../docs/man/etcdlocker.1")
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ReplaceAll(string(man), `\-`, "-"), "--"+name) {
				t.Errorf("the man page does not name --%s", name)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d options found in the source", found)
	}
}

// TestSkipsAreCounted: tests are skipped with etcdtest.Missing and etcdtest.Skip alone, in packages that print the counts.
func TestSkipsAreCounted(t *testing.T) {
	skip := regexp.MustCompile(`\b(t|tb|b)\.(Skip|Skipf|SkipNow)\(`)
	counted := regexp.MustCompile(`\betcdtest\.(Missing|Skip)\(`)
	hook := regexp.MustCompile(`\betcdtest\.Main\(m\)`)
	counting, hooked := map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, "../")
		if dir := filepath.Dir(name); dir != "internal/etcdtest" {
			counting[dir] = counting[dir] || counted.Match(source)
			hooked[dir] = hooked[dir] || hook.Match(source)
			if found := skip.Find(source); found != nil {
				t.Errorf("%s calls %s): call etcdtest.Missing or etcdtest.Skip", name, found)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, counts := range counting {
		if counts && !hooked[dir] {
			t.Errorf("%s skips tests, and its TestMain does not call etcdtest.Main", dir)
		}
	}
	if !counting["test"] || !counting["internal/cgroup"] {
		t.Errorf("counted skips were found in %v", counting)
	}
}
