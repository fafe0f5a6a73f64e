package supervise

import (
	"os"
	"slices"
	"syscall"
	"time"
)

// Processes are a running command with everything it started, and what a Life acts with.
type Processes interface {
	Hands
	Exited() <-chan Exit    // receives when the command has ended, and perhaps when its guard has
	Empty() <-chan struct{} // closed when nothing is left of all of them
	Stopped() <-chan bool   // receives whether the command is stopped, when that has changed
}

// Latest is a channel with room for one, in which a new value takes the place of one that was not
// received. One goroutine puts.
type Latest chan bool

// Put puts a value in.
func (l Latest) Put(value bool) {
	select {
	case <-l:
	default:
	}
	l <- value
}

// Events are what happens to a Life from outside. A channel that is nil never brings anything.
type Events struct {
	Doubt     <-chan bool // the lock will be lost unless it is renewed soon; or no longer
	Lost      <-chan struct{}
	Expired   <-chan struct{}
	Unhealthy <-chan Trouble
	Before    []os.Signal                  // sent to this process before the command could get them
	Signals   <-chan os.Signal             // sent to this process since
	Reach     func(s syscall.Signal) Reach // who else has got a signal that was received just now
	// Returns when the signals that came before can be received.
	Settle func()

	// When IsLate is called, which may look at the Life, unless the command has ended just now.
	Late   <-chan time.Time
	IsLate func()

	pending []syscall.Signal // received and not taken yet, each once
}

// receive notes a signal, and those behind it in the channel: it takes a while to find out how far
// a signal has reached, and what finds no room in the channel meanwhile is lost. Of one that comes
// again before it was taken there is one, as of those that a process has blocked.
func (e *Events) receive(sig os.Signal) {
	for {
		if s, ok := sig.(syscall.Signal); ok && !slices.Contains(e.pending, s) {
			e.pending = append(e.pending, s)
		}
		select {
		case sig = <-e.Signals:
		default:
			return
		}
	}
}

// take takes one of the signals that were received, first those that tell to stop. It reports
// whether there was one.
func (e *Events) take(l *Life) bool {
	if len(e.pending) == 0 {
		return false
	}
	i := max(slices.IndexFunc(e.pending, IsStop), 0)
	sig := e.pending[i]
	e.pending = slices.Delete(e.pending, i, i+1)
	l.Signaled(time.Now(), sig, e.Reach(sig))
	return true
}

// received returns a channel that can be received from if there are signals to take.
func (e *Events) received() <-chan struct{} {
	if len(e.pending) == 0 {
		return nil
	}
	return always
}

// always is closed.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// before takes those that the command has not got, whoever has sent them.
func (e *Events) before(l *Life) {
	for _, sig := range e.Before {
		if sig, ok := sig.(syscall.Signal); ok {
			l.Signaled(time.Now(), sig, Alone)
		}
	}
}

// SameSignalWithin is for how long a signal is awaited that may have been sent to several processes
// at the same time, and has come to one of them: a thread that has taken it may not get a processor
// at once.
const SameSignalWithin = 20 * time.Millisecond

// exit tells a Life that the command has ended, after the signals that came before.
func (e *Events) exit(l *Life, how Exit) {
	e.settle(l, how.Status)
	l.Exited(time.Now(), how)
}

// settle takes the signals that came before the command ended, though they may be known only after:
// one that went to the command and to us at the same time may have ended it.
func (e *Events) settle(l *Life, status syscall.WaitStatus) {
	if e.Settle == nil {
		return
	}
	e.Settle()
	e.Reach = func(syscall.Signal) Reach { return Unit } // nobody is left to pass it on to
	var late <-chan time.Time
	if status.Signaled() && IsStop(status.Signal()) {
		late = time.After(SameSignalWithin)
	}
	for {
		select {
		case sig := <-e.Signals:
			e.receive(sig)
		default:
		}
		if e.take(l) {
			continue
		}
		if late == nil || l.Stop != 0 {
			return
		}
		select {
		case sig := <-e.Signals:
			e.receive(sig)
		case <-late:
			late = nil
		}
	}
}

// Drive lets a Life decide, and what it belongs to act, until it is over.
func Drive(l *Life, p Processes, from Events) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	exited, empty, stopped := p.Exited(), p.Empty(), p.Stopped()
	from.before(l)
	for l.State() != Over {
		if at := l.Wake(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case sig := <-from.Signals:
			from.receive(sig)
		case <-from.received():
			from.take(l)
		case is := <-stopped:
			l.Stopped(time.Now(), is)
		case in := <-from.Doubt:
			l.Doubt(in)
		case <-from.Lost:
			from.Lost = nil
			l.Lost(time.Now())
		case <-from.Expired:
			from.Expired = nil
			l.Expired(time.Now())
		case t := <-from.Unhealthy:
			// A command that has ended need not be well, though select has not picked that.
			select {
			case e := <-exited:
				from.exit(l, e)
			default:
				l.Unhealthy(time.Now(), t)
			}
		case e := <-exited:
			from.exit(l, e)
		case <-empty:
			empty = nil
			// The end of the command came first, though select may not have picked it.
			select {
			case e := <-exited:
				from.exit(l, e)
			default:
			}
			l.Empty()
		case <-from.Late:
			select {
			case e := <-exited:
				from.exit(l, e)
			default:
				from.IsLate()
			}
		case <-timer.C:
			l.Tick(time.Now())
		}
	}
}
