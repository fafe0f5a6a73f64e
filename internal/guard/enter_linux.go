package guard

import "os"

// A guard is entered before the packages behind etcdlocker's are initialised: none of them is of use to it, and they cost
// as much as the rest of its start. Packages are initialised in the order of their import paths as far as they do not need
// each other, so this one comes early if it needs little.
func init() {
	if len(os.Args) > 0 && os.Args[0] == Name {
		os.Exit(run())
	}
}
