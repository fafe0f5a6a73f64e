package supervise

import (
	"syscall"
	"time"
)

// KillBelow kills everything below another process, until nothing of it lives or it is time. That
// process must be stopped: then it starts and reaps nothing, and orphans below it fall to it.
//
// That nothing lives is known from a walk that stood still and found nobody but those who had ended
// before it began: one who ends during it may have forked after it was asked for its children.
func KillBelow(top int, until time.Time) {
	ended := map[int]string{} // when those had started, by id
	for time.Now().Before(until) {
		all, still := walk(top)
		for _, p := range all {
			if start, before := ended[p.PID]; before && start == p.start {
				continue
			}
			still = false
			if p.Alive() {
				p.Signal(syscall.SIGKILL)
			} else {
				ended[p.PID] = p.start
			}
		}
		if still {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
