package etcdtest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Programs builds etcdlocker and etcdlockctl before the tests run, and stores the name of the
// directory that they are in. All users may execute them. module is the root of the project.
func (r *Runner) Programs(dir *string, module string) *Runner {
	r.programs, r.module = dir, module
	return r
}

// withPrograms builds the programs if tests need them, calls run, and returns what run returns.
func (r *Runner) withPrograms(run func() int) int {
	if r.programs == nil {
		return run()
	}
	dir, err := os.MkdirTemp("", "etcdlock-test-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = GoBuild(r.module, "-o", dir+"/", "./cmd/...")
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "etcdtest: %v\n", err)
		return 1
	}
	*r.programs = dir
	return run()
}

// GoBuild runs go build in a directory. It builds without cgo, as programs are released. The error
// has what the compiler says.
func GoBuild(dir string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %v: %w\n%s", args, err, out)
	}
	return nil
}

// Read returns what is in a file.
func Read(t testing.TB, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
