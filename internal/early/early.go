//go:build unix

// Package early is what etcdlocker does before the packages behind it are initialised, which takes longer than anything
// else that it does by itself. Packages are initialised in the order of their import paths as far as they do not need
// each other, so this one comes early if it needs little.
package early

import (
	"os"
	"runtime"
	"slices"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// Guard is a guard that gets ready at the same time, on another processor; nil if it is clear from the words that none is
// needed. Whether one is needed after all is known later.
var Guard *guard.Launched

func init() {
	populateHeap()
	if len(os.Args) > 2 && !slices.Contains(os.Args, "--unguarded") {
		Guard = guard.Launch(os.Args)
	}
	// What etcdlocker does are short steps, one after the other. More than one processor would not make them faster, and makes
	// threads wake each other up for each step.
	if os.Getenv("GOMAXPROCS") == "" {
		go func() {
			Guard.Ready() // that goes on beside the initialisation
			runtime.GOMAXPROCS(1)
		}()
	}
}
