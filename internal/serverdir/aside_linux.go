package serverdir

import (
	"errors"
	"os"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// errInside says that this process cannot start anything that is not its own to end.
var errInside = errors.New("orphans fall to the first process of a pid namespace: it would be ended with the command")

// aside returns how to start a process that leaves a server behind. If orphans fall to this
// process, as they do once it has a command to look after, the server would be one of them: it
// would be killed with the command, and waited for before the lock is released. So the process is
// started as a child of our parent, and the server falls to whoever adopts that one's orphans. A
// command cannot escape that way: what adopts its orphans is above all of its parents.
func aside() (*syscall.SysProcAttr, error) {
	sys := &syscall.SysProcAttr{Setpgid: true} // what is typed is not for it
	switch {
	case !kernel.AdoptsOrphans():
	case os.Getpid() == 1:
		return nil, errInside
	default:
		sys.Cloneflags = syscall.CLONE_PARENT
	}
	return sys, nil
}
