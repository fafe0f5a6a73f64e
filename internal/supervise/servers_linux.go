package supervise

import (
	"strconv"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// serverWords begin the command line of an embedded etcd in the background.
const serverWords = "etcdlockctl\x00serve\x00"

// isServer reports whether a process says that it is an embedded etcd. Any process can say so, and
// it must not gain by that: it dies with all others when the lock is lost, and where others are
// waited for it is ended. Only while the lock is in doubt does it go on, as the doubt may be ended
// by it.
func (p Process) isServer() bool {
	if !kernel.OwnProc() {
		return false
	}
	words, err := kernel.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/cmdline")
	if err != nil {
		return false
	}
	_, is := kernel.CutPrefix(words, serverWords)
	return is
}

// OnlyServers reports whether embedded etcds, one at least, are all that lives of some processes.
func OnlyServers(all []Process) bool {
	servers := 0
	for _, p := range all {
		switch {
		case !p.Alive():
		case p.isServer():
			servers++
		default:
			return false
		}
	}
	return servers > 0
}
