//go:build unix

// Package early is what etcdlocker begins before the packages behind it are initialised, which takes longer than anything
// else that it does by itself. As packages are initialised in the order of their import paths as far as they do not need
// each other, this one comes early if it needs little.
package early

import (
	"os"
	"slices"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// Guard is a guard that gets ready at the same time, on another processor; nil if it is clear from the words that none is
// needed. Whether one is needed after all is known later.
var Guard *guard.Launched

func init() {
	if len(os.Args) > 2 && !slices.Contains(os.Args, "--unguarded") {
		Guard = guard.Launch(os.Args)
	}
}
