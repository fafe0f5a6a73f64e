package supervise

import (
	"runtime"
	"sync"
	"syscall"
)

const (
	killers    = 3           // threads that kill
	processors = killers + 1 // so that those do not take turns, and one is left for the rest
	waiting    = 3           // threads that wait in the kernel, for children, signals and files

	enough = killers + processors + waiting
)

// reserve has Go keep as many threads as a process with a Killer can need. Go ends a process that
// needs one more and cannot have it, and a command may use up all that its user, or its container,
// may have. So there is a look before each whether there is room. If there is none, reserve returns
// false. Whoever waits for children of this process must hold reaping.
func reserve(reaping *sync.Mutex) bool {
	const surely = 3 // room for a moment, of which others take most, is none
	for range surely {
		if !hasRoom(reaping) {
			return false
		}
	}
	var kept sync.WaitGroup
	defer kept.Wait()
	release := make(chan struct{})
	defer close(release)
	for range enough {
		if !hasRoom(reaping) {
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
// executes nothing.
func hasRoom(reaping *sync.Mutex) bool {
	reaping.Lock() // whoever waits for children does not see it
	defer reaping.Unlock()
	_, err := syscall.ForkExec("", nil, &syscall.ProcAttr{})
	return err == syscall.ENOENT
}
