//go:build unix

package rundir

import (
	"errors"
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
	if dir, err := Dir(); err != nil || filepath.Dir(dir) != tmp {
		t.Errorf("for one that everybody may write to there is %q, %v", dir, err)
	}
	if err := os.Chmod(filepath.Join(tmp, filepath.Base(mustDir(t))), 0o777); err != nil {
		t.Fatal(err)
	}
	if dir, err := Dir(); err == nil {
		t.Errorf("%q is taken, which everybody may write to", dir)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(tmp, "etcdlock-0")), os.RemoveAll(filepath.Join(xdg, "etcdlock")), os.Chown(xdg, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if dir := mustDir(t); filepath.Dir(dir) != tmp {
		t.Errorf("in the runtime directory of another user: %q", dir)
	}
	if _, err := os.Stat(filepath.Join(xdg, "etcdlock")); err == nil {
		t.Error("it left something there")
	}
}

func mustDir(t *testing.T) string {
	t.Helper()
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
