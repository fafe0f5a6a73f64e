package guard

import (
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/kernel"
)

// alarms are timers of the kernel's for a guard that is stopped when validity ends. The first,
// shortly before that, lets it go on, again and again, so that it can act. The second, for one that
// does not get to that all the same, kills it, and with it the command, but nothing that the
// command has started.
type alarms struct{ wake, kill *kernel.SignalTimer }

const (
	// wakeEvery is the time between two signals to go on.
	wakeEvery = 10 * time.Millisecond

	// lastResort is the time between the end of validity and the second alarm. It is longer than
	// most machines stand still: a guard that is late because the whole machine stood still finds
	// both alarms overdue, and alive it ends more than dead.
	lastResort = time.Second

	// executing is the same while the command is being executed, which a file system can hold up,
	// and the guard with it: shorter than the margin, so that no command begins when the lease may
	// have run out. There is nothing yet below the guard that does not die with it. One that was
	// only stopped has this time to say that the command runs.
	executing = 200 * time.Millisecond
)

// prepare makes those that are not there yet. It fails where the user has used up what the kernel
// allows (RLIMIT_SIGPENDING), and where a sandbox refuses to set them.
func (a *alarms) prepare() (err error) {
	if a.wake, err = prepared(a.wake, syscall.SIGCONT); err != nil {
		return err
	}
	a.kill, err = prepared(a.kill, syscall.SIGKILL)
	return err
}

func prepared(timer *kernel.SignalTimer, sig syscall.Signal) (*kernel.SignalTimer, error) {
	if timer != nil {
		return timer, nil
	}
	timer, err := kernel.NewSignalTimer(sig)
	if err != nil {
		return nil, err
	}
	if err := timer.Set(0, 0); err != nil {
		timer.Close()
		return nil, err
	}
	return timer, nil
}

// close takes them away.
func (a *alarms) close() {
	for _, timer := range []*kernel.SignalTimer{a.wake, a.kill} {
		if timer != nil {
			timer.Close()
		}
	}
}

// set sets the two to their times, in place of those that they were set to before.
func (a *alarms) set(wake, kill boottime.Instant) {
	if a.wake != nil {
		a.wake.Set(time.Duration(wake), wakeEvery)
	}
	if a.kill != nil {
		a.kill.Set(time.Duration(kill), 0)
	}
}

// spare takes the second one back: who kills must live, and not be stopped.
func (a *alarms) spare() {
	if a.kill != nil {
		a.kill.Set(0, 0)
	}
}
