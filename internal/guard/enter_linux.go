package guard

import "os"

// A guard is entered before the packages behind etcdlocker's are initialised: none of them is of use to it, and they cost
// as much as the rest of its start. What makes that early is explained in docs/processes.md.
func init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case Name:
		os.Exit(run())
	case checkerName:
		os.Exit(runChecks())
	}
}
