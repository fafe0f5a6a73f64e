package guard

import (
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// notForGuards are signals that may go to everything that is called like etcdlocker. If the guard
// died of them, the command would be killed instead of being asked to end.
// HUP comes from the kernel as well, if a guard is stopped when its parent, etcdlocker, dies.
var notForGuards = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}

// outliveSignals has this process not die of those, nor stop of SIGTSTP. Those that are ignored
// stay so: the command inherits that.
//
// They are caught. While a command runs none becomes ignored, nor is it given back: of one that is
// on its way to Go's handler meanwhile, on another thread, this process would die, and leave what
// the command has started.
func outliveSignals() {
	// Go unblocks a signal before it takes it: one that has come would stop this process now. To
	// ignore it drops that one.
	signal.Ignore(syscall.SIGTSTP)
	for _, sig := range notForGuards {
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTSTP)
}

// testify has etcdlocker told of those of them that come. A service manager sends them to
// everything that it has started: then the command has got them as well.
func (w *warden) testify() {
	came := make(chan os.Signal, 8)
	signal.Notify(came, notForGuards...)
	go func() {
		for sig := range came {
			if sig, ok := sig.(syscall.Signal); ok {
				sendTo(w.socket, numbers(sent, uint64(sig), 0), -1)
			}
		}
	}()
}

// A testimony is what a guard has told of signals that came to it.
type testimony struct {
	at   [65]atomic.Int64 // by signal: a boottime.Instant; 0: not come, or asked for already
	news chan struct{}    // has room for one
}

func newTestimony() *testimony { return &testimony{news: make(chan struct{}, 1)} }

// add notes that a signal has come.
func (t *testimony) add(sig uint64) {
	if sig >= uint64(len(t.at)) {
		return
	}
	t.at[sig].Store(int64(boottime.Now()))
	select {
	case t.news <- struct{}{}:
	default:
	}
}

// has reports whether a signal has come, by so long ago at most, or comes within that time.
func (t *testimony) has(sig syscall.Signal, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		if at := t.at[sig].Swap(0); at != 0 && boottime.Now().Sub(boottime.Instant(at)) <= within {
			return true
		}
		select {
		case <-t.news:
		case <-timer.C:
			return false
		}
	}
}
