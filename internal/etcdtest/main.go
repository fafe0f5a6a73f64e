package etcdtest

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
)

// Runner runs the tests of a package, as testing.M does.
type Runner struct {
	m        *testing.M
	timed    bool
	parallel int // 0: as many as the testing package wants

	programs *string // where the name of their directory goes, nil if the tests need none
	module   string
}

// Main is the hook for TestMain that [Shared], [StartProcess] and [StartCluster] need:
//
//	os.Exit(etcdtest.Main(m).Run())
//
// Call it before anything else, also before testscript.Main, which takes its result in place of m.
// In a process that was started to be a member of a cluster it does not return.
func Main(m *testing.M) *Runner {
	if spec := os.Getenv(memberEnv); spec != "" {
		err := runMember(spec)
		fmt.Fprintf(os.Stderr, "%s: %v\n", memberName, err)
		os.Exit(1)
	}
	shared.Lock()
	defer shared.Unlock()
	shared.hooked = true
	return &Runner{m: m}
}

// Timed says that the tests are about time. On one machine, only one package of that kind runs its
// tests at a time. Waiting for the others counts against the time limit of go test, so all of them
// together must stay well below it.
func (r *Runner) Timed() *Runner {
	r.timed = true
	return r
}

// Parallel lets n parallel tests run at once, however few processors there are. It is for tests
// that mostly wait. The flag -parallel has precedence.
func (r *Runner) Parallel(n int) *Runner {
	r.parallel = n
	return r
}

// Run runs the tests, stops the shared server, prints which tests were skipped for what, and
// returns the exit code.
func (r *Runner) Run() int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if r.parallel > 0 {
		setUnlessGiven(flag.CommandLine, "test.parallel", strconv.Itoa(r.parallel))
	}
	if flag.Lookup("test.list").Value.String() != "" {
		return r.run()
	}
	return r.withPrograms(func() int {
		if r.timed {
			return inTurn(r.run)
		}
		return r.run()
	})
}

func (r *Runner) run() int {
	code := r.m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintf(os.Stderr, "etcdtest: %v\n", err)
		code = max(code, 1)
	}
	skips.print(os.Stderr)
	return code
}

// setUnlessGiven sets a flag that the command line has not set.
func setUnlessGiven(flags *flag.FlagSet, name, value string) {
	given := false
	flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if !given {
		flags.Set(name, value)
	}
}
