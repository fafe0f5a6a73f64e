//go:build unix

// Package early is what etcdlocker does before the packages behind it are initialised, which takes
// longer than anything else that it does by itself. What makes it early is explained in
// docs/processes.md.
package early

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/goruntime"
	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/kernel"
	"github.com/etcdlock/etcdlock/internal/supervise"
)

// Guard is a guard that gets ready at the same time, on another processor. It is nil if the words
// look as if none was needed; whether one is needed is known later.
var Guard *guard.Launched

func init() {
	guard.Unsteer()
	goruntime.Abort()
	goruntime.DefaultMemory()
	supervise.NoteEarlier()
	// What etcdlocker does are short steps, one after the other. More than one processor would not
	// make them faster, and makes threads wake each other up for each step. To give one up when it
	// has been used takes longer than the guard's start beside the initialisation would save.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
	populateHeap()
	keepChannel()
	if len(os.Args) > 1 && !slices.ContainsFunc(os.Args[:2], isQuestion) && !slices.Contains(os.Args, "--unguarded") && !showPassword(os.Args) {
		Guard = guard.Launch(os.Args)
	}
}

// keepChannel keeps a channel to a Node.js process that has started us to ourselves: it is not
// meant for the command, which would keep it open.
func keepChannel() {
	fd, err := strconv.Atoi(os.Getenv("NODE_CHANNEL_FD"))
	var is syscall.Stat_t
	if err == nil && fd > 2 && syscall.Fstat(fd, &is) == nil && is.Mode&syscall.S_IFMT == syscall.S_IFSOCK {
		syscall.CloseOnExec(fd)
	}
}

// showPassword reports whether words may have a password in them, which a guard would repeat in the
// process list. Then it is started when the words have been understood.
func showPassword(words []string) bool {
	for i, word := range words {
		// Behind an option it may be that one's value.
		if _, option := kernel.CutPrefix(words[max(i-1, 0)], "-"); word == "--" && !option {
			break
		}
		if name, _, _ := kernel.Cut(word, '='); name == "--password" || name == "--user" {
			return true
		}
	}
	return false
}

// isQuestion reports whether a word asks about etcdlocker itself.
func isQuestion(word string) bool { return word == "-h" || word == "--help" || word == "--version" }
