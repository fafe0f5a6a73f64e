package guard

import (
	"os"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// A guard is entered before the packages behind etcdlocker's are initialised: none of them is of
// use to it, and they cost as much as the rest of its start. What makes that early is explained in
// docs/processes.md.
func init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case Name:
		os.Exit(run())
	case checkerName:
		os.Exit(runChecks())
	case stageName:
		os.Exit(stage())
	}
}

// enter makes this process one that looks after others, and returns its end of the channel to
// etcdlocker.
func enter(name string) (socket int, ok bool) {
	socket, ok = numberOf(os.Environ(), socketNumber)
	if !ok || kernel.AdoptOrphans(true) != nil {
		return 0, false
	}
	syscall.CloseOnExec(socket)
	kernel.SetName(name)
	return socket, true
}
