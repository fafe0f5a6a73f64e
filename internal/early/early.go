//go:build unix

// Package early is what etcdlocker does before the packages behind it are initialised, which takes longer than anything
// else that it does by itself. What makes it early is explained in docs/processes.md.
package early

import (
	"os"
	"runtime"
	"slices"

	"github.com/etcdlock/etcdlock/internal/guard"
)

// Guard is a guard that gets ready at the same time, on another processor. It is nil if the words look as if none was needed;
// whether one is needed is known later.
var Guard *guard.Launched

func init() {
	populateHeap()
	if len(os.Args) > 1 && !slices.ContainsFunc(os.Args[:2], isQuestion) && !slices.Contains(os.Args, "--unguarded") {
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

// isQuestion reports whether a word asks about etcdlocker itself.
func isQuestion(word string) bool { return word == "-h" || word == "--help" || word == "--version" }
