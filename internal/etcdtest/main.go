package etcdtest

import (
	"fmt"
	"os"
	"testing"
)

// Runner runs the tests of a package, as testing.M does.
type Runner struct{ m *testing.M }

// Main is the hook for TestMain that [Shared], [StartProcess] and [StartCluster] need:
//
//	os.Exit(etcdtest.Main(m).Run())
//
// Call it before anything else, also before testscript.Main, which takes its result in place of m. In a process that
// was started to be a member of a cluster it does not return.
func Main(m *testing.M) *Runner {
	if spec := os.Getenv(memberEnv); spec != "" {
		err := runMember(spec)
		fmt.Fprintf(os.Stderr, "%s: %v\n", memberName, err)
		os.Exit(1)
	}
	shared.Lock()
	defer shared.Unlock()
	shared.hooked = true
	return &Runner{m}
}

// Run runs the tests, stops the shared server and returns the exit code.
func (r *Runner) Run() int {
	code := r.m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintf(os.Stderr, "etcdtest: %v\n", err)
		code = max(code, 1)
	}
	return code
}
