//go:build linux

// Package programs is for the tests of whole programs: it runs the real etcdlocker and etcdlockctl,
// and commands that contain them, and tells what becomes of them, of their locks in etcd and of the
// processes below them. What waits for something fails the test if that does not come in the time
// that [etcdtest.Await] gives it.
package programs

import (
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// built is the directory of the programs that were built for this run.
var built string

// Main runs the tests of a package, for its TestMain, and returns the exit code. They are about
// time, and run eight at once:
//
//	os.Exit(programs.Main(etcdtest.Main(m)))
//
// The package must be two directories below the root of the project.
func Main(r *etcdtest.Runner) int {
	// What we were started to ignore, as by nohup, the programs would ignore as well.
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	// Most tests wait for leases to end.
	return r.Programs(&built, "../..").Timed().Parallel(8).Run()
}

// Path returns the path of a program of ours by its name, as it does for another file beside them.
// It works while tests run.
func Path(name string) string { return filepath.Join(built, name) }

// runVariable tells the processes of this run of the tests from those of others.
const runVariable = "ETCDLOCK_TEST_RUN"

// runtimeDir is the runtime directory of the tests' user.
var runtimeDir = sync.OnceValue(func() string {
	dir := Path("run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	return dir
})

// Environment returns that of a user who has set nothing of ours, and the variables given.
func Environment(vars ...string) []string {
	env := []string{runVariable + "=" + built, "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "XDG_RUNTIME_DIR=" + runtimeDir()}
	return append(env, vars...)
}
