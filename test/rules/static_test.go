//go:build linux

package rules

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestInstallIsStatic: each command of the documents that builds the programs makes static ones,
// which run on any Linux of that processor.
func TestInstallIsStatic(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`((?:\w+=\S+ )*)go (?:install|build) (?:-\S+ )*([^\s` + "`" + `]+)`)
	built := map[string]bool{}
	for _, document := range append(documents, "README.md", "SECURITY.md") {
		for _, found := range command.FindAllStringSubmatch(etcdtest.Read(t, document), -1) {
			vars := strings.Fields(found[1])
			if !slices.Contains(vars, "CGO_ENABLED=0") {
				t.Errorf("%s: without CGO_ENABLED=0: %s", filepath.Base(document), found[0])
			}
			what, _, _ := strings.Cut("./"+strings.TrimPrefix(strings.TrimPrefix(found[2], ours), "./"), "@")
			if vars = slices.DeleteFunc(vars, func(v string) bool { return strings.HasPrefix(v, "GOBIN=") }); !built[what] {
				built[what] = true
				checkStatic(t, vars, what)
			}
		}
	}
	if !built["./cmd/..."] {
		t.Errorf("the documents build %v", built)
	}
}

// checkStatic builds programs, and checks that the kernel starts them without a dynamic linker.
func checkStatic(t *testing.T, vars []string, what string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+"/", what)
	cmd.Env = append(os.Environ(), vars...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"etcdlocker", "etcdlockctl"} {
		program, err := elf.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("%s, built by go build %s with %q, needs a dynamic linker", name, what, vars)
		}
	}
}
