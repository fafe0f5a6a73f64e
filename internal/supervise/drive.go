package supervise

import (
	"os"
	"syscall"
	"time"
)

// Processes are a running command with everything it started, and what a Life acts with.
type Processes interface {
	Hands
	Exited() <-chan Exit    // receives once, when the command has ended
	Empty() <-chan struct{} // closed when nothing is left of all of them
}

// Drive lets a Life decide, and what it belongs to act, until it is over. Signals are those sent to this process; shared
// says of one whether the command has got it already.
func Drive(l *Life, p Processes, lost, expired <-chan struct{}, signals <-chan os.Signal, shared func(syscall.Signal) bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	exited, empty := p.Exited(), p.Empty()
	for l.State() != Over {
		if at := l.Wake(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case sig := <-signals:
			if sig, ok := sig.(syscall.Signal); ok {
				l.Signaled(time.Now(), sig, !shared(sig))
			}
		case <-lost:
			lost = nil
			l.Lost(time.Now())
		case <-expired:
			expired = nil
			l.Expired(time.Now())
		case e := <-exited:
			exited = nil
			l.Exited(time.Now(), e)
		case <-empty:
			empty = nil
			// The end of the command came first, though select may not have picked it.
			select {
			case e := <-exited:
				l.Exited(time.Now(), e)
			default:
			}
			l.Empty()
		case <-timer.C:
			l.Tick(time.Now())
		}
	}
}
