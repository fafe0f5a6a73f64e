package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestOptionsOfEtcdctl: docs/etcdctl.md has a line for each global option that etcdctl has, and no
// others.
func TestOptionsOfEtcdctl(t *testing.T) {
	program := filepath.Join(t.TempDir(), "etcdctl")
	if out, err := exec.Command("go", "build", "-o", program, "go.etcd.io/etcd/etcdctl/v3").CombinedOutput(); err != nil {
		t.Fatalf("building: %v: %s", err, out)
	}
	help, err := exec.Command(program, "options").Output()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/etcdctl.md")
	if err != nil {
		t.Fatal(err)
	}
	theirs := names(`(?m)^ +(?:-\w, )?--([a-z-]+)`, help)
	listed := names("(?m)^\\| `--([a-z-]+)` \\|", page)
	if !slices.Equal(theirs, listed) || len(theirs) < 20 {
		t.Errorf("etcdctl has %q, listed are %q", theirs, listed)
	}
}

// names returns what the first group of a pattern matches, sorted.
func names(pattern string, text []byte) []string {
	found := make(map[string]bool)
	for _, match := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
		found[string(match[1])] = true
	}
	return slices.Sorted(maps.Keys(found))
}
