package supervise

import (
	"runtime"
	"sync"

	"github.com/etcdlock/etcdlock/internal/kernel"
)

const (
	killers    = 3           // threads that kill
	processors = killers + 1 // so that those do not take turns, and one is left for the rest
	waiting    = 3           // threads that wait in the kernel, for children, signals and files

	enough = killers + processors + waiting

	// What there must be room for besides. The thread that waits for signals lends its own to
	// others while it has one to deal with, and needs it back: so may two or three at once. And a
	// tree that runs fills the room while the threads are started: in a millisecond it starts about
	// ten.
	spareStopped = 3
	spareRunning = 20
)

// reserve has Go keep as many threads as a process with a Killer can need. Go ends a process that
// needs one more and cannot have it, and a command may use up all that its user, or its container,
// may have. So there must be room for all of them and some to spare, at once. If there is none,
// reserve returns false. Whoever waits for children of this process must hold reaping.
func reserve(reaping *sync.Mutex, spare int) bool {
	if !hasRoom(reaping, enough+spare) {
		return false
	}
	var kept sync.WaitGroup
	defer kept.Wait()
	release := make(chan struct{})
	defer close(release)
	for range enough {
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

// hasRoom reports whether this process may have so many more processes or threads.
func hasRoom(reaping *sync.Mutex, some int) bool {
	reaping.Lock() // whoever waits for children does not see those that find it out
	defer reaping.Unlock()
	return kernel.HasRoom(some)
}
