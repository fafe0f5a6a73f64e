package supervise

import (
	"os"
	"sync"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

// adopt makes orphans among our descendants fall to us instead of to init.
func adopt() error {
	return os.NewSyscallError("becoming the parent of orphans", kernel.AdoptOrphans(true))
}

// release lets them fall to init again.
func release() { kernel.AdoptOrphans(false) }

func attributes() *syscall.SysProcAttr { return nil }

type killer struct {
	*Killer
	progress Progress
}

func newKiller(reaping *sync.Mutex) killer { return killer{Killer: NewKiller(nil, reaping, 0)} }

// Kill kills everything below this process, until Close. It reports whether something of it has
// died since the last call.
func (t *Tree) Kill() (progress bool) {
	t.killer.Begin()
	return t.killer.progress.Made()
}

func (t *Tree) signalCommand(sig syscall.Signal) { syscall.Kill(t.pid, sig) }

func (t *Tree) signalAll(sig syscall.Signal) {
	for _, p := range Descendants() {
		p.Signal(sig)
	}
	t.Signal(sig) // also where /proc shows nothing
}
