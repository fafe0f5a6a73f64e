package supervise

import (
	"runtime"
	"sync"
	"syscall"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

const (
	killers    = 3           // threads that kill
	processors = killers + 1 // so that those do not take turns, and one is left for the rest
	waiting    = 3           // threads that wait in the kernel, for children, signals and files

	enough = killers + processors + waiting

	// What there must be room for besides: the thread that waits for signals lends its own to
	// others while it has one to deal with, and needs it back.
	spare = 2
)

// reserve has Go keep as many threads as a process with a Killer can need. Go ends a process that
// needs one more and cannot have it, and a command may use up all that its user, or its container,
// may have. So there is a look before each whether there is room, which takes the room of one for a
// moment: others may need the rest, this process among them. Without room reserve returns false; if
// somebody takes it right after the look, this process ends. Whoever waits for children of this
// process must hold reaping.
func reserve(reaping *sync.Mutex) bool {
	const surely = 3 // room for a moment, of which others take most, does not count
	for range surely {
		if !hasRoom(reaping) {
			return false
		}
	}
	return startThreads(func() bool { return hasRoom(reaping) })
}

// reserveStopped is reserve while the tree below this process stands still. There must be room for
// all threads, and some to spare, at once.
func reserveStopped(reaping *sync.Mutex) bool {
	reaping.Lock()
	room := kernel.HasRoom(enough + spare)
	reaping.Unlock()
	return room && startThreads(func() bool { return true })
}

// startThreads starts threads for as long as may says so, and keeps them. It reports whether all
// were started.
func startThreads(may func() bool) bool {
	var kept sync.WaitGroup
	defer kept.Wait()
	release := make(chan struct{})
	defer close(release)
	for range enough {
		if !may() {
			return false
		}
		locked := make(chan struct{})
		kept.Go(func() {
			runtime.LockOSThread()
			close(locked)
			<-release
			runtime.UnlockOSThread()
		})
		<-locked
	}
	return true
}

// hasRoom reports whether this process may have one more process or thread. It starts one that
// executes nothing. A signal to the process group must not stop that one: this process would wait
// for it, and whoever has sent the signal need not continue it.
func hasRoom(reaping *sync.Mutex) bool {
	reaping.Lock() // whoever waits for children does not see it
	defer reaping.Unlock()
	var err error
	kernel.Unsignaled(func() { _, err = syscall.ForkExec("", nil, &syscall.ProcAttr{}) })
	return err == syscall.ENOENT
}
