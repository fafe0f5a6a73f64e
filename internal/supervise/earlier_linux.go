package supervise

import (
	"os"
	"slices"
	"sync"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// earlier are the children that this process had before it executed this program, as a shell that
// replaces itself (exec) may have some. They, and what they start, are not the command's.
var earlier struct {
	sync.Mutex
	pids []int
}

// NoteEarlier notes the children of this process as earlier ones. It is called before any other is
// started.
func NoteEarlier() {
	if !kernel.HasChildren() {
		return
	}
	self, found := os.Getpid(), Descendants()
	earlier.Lock()
	defer earlier.Unlock()
	for _, p := range found {
		// 0: /proc is another pid namespace's, and they are all children.
		if p.parent == self || p.parent == 0 {
			earlier.pids = append(earlier.pids, p.PID)
		}
	}
}

// isEarlier reports whether a process is one of them.
func isEarlier(pid int) bool {
	earlier.Lock()
	defer earlier.Unlock()
	return slices.Contains(earlier.pids, pid)
}

// forgetEarlier is called for each child that was waited for: another process may get its id.
func forgetEarlier(pid int) {
	earlier.Lock()
	defer earlier.Unlock()
	earlier.pids = slices.DeleteFunc(earlier.pids, func(p int) bool { return p == pid })
}

// onlyEarlier reports whether there are children, and all of them are earlier ones. Whoever waits
// for children must not do so at the same time: then none of them disappears meanwhile.
func onlyEarlier() bool {
	earlier.Lock()
	none := len(earlier.pids) == 0
	earlier.Unlock()
	if none {
		return false
	}
	if others, listed := childrenOf(os.Getpid(), 0); listed {
		return len(others) == 0
	}
	return len(Descendants()) == 0
}
