//go:build unix

package rundir

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDir(t *testing.T) {
	xdg, tmp := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for runtimeDir, parent := range map[string]string{
		xdg:                             xdg,
		filepath.Join(xdg, "not there"): tmp,
		"":                              tmp,
		"relative":                      tmp,
	} {
		t.Setenv("XDG_RUNTIME_DIR", runtimeDir)
		dir, err := Dir()
		if err != nil || filepath.Dir(dir) != parent {
			t.Errorf("XDG_RUNTIME_DIR=%q: %q, %v", runtimeDir, dir, err)
			continue
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%q: %v, %v", dir, info, err)
		}
	}
	t.Setenv("XDG_RUNTIME_DIR", xdg)
	if err := os.Chmod(filepath.Join(xdg, "etcdlock"), 0o777); err != nil {
		t.Fatal(err)
	}
	if dir, err := Dir(); err == nil {
		t.Errorf("%q is taken, which everybody may write to", dir)
	}
}
