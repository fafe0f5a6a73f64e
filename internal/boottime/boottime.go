// Package boottime is the clock that does not stop in suspend.
//
// Go's monotonic clock stands still while a machine sleeps, a lease does not: every deadline of a
// lock is therefore counted on the boot clock (CLOCK_BOOTTIME on Linux, its like elsewhere).
package boottime

import "time"

// An Instant is a moment on the boot clock, in nanoseconds since an arbitrary start that is the
// same for all processes of one machine until it is booted again. The zero Instant is long past.
type Instant int64

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns how much later i is than j.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Until returns the time left until i: negative once it has passed.
func (i Instant) Until() time.Duration { return i.Sub(Now()) }

// A Timer sends on C when its instant has come, also when the machine slept in between. It belongs
// to one goroutine, which must call Close.
type Timer struct {
	C <-chan struct{}
	alarm
}

// alarm is what a timer rests on. set replaces the instant, close ends the goroutine behind it.
type alarm interface {
	set(Instant)
	close()
}

// NewTimer returns a timer that is not set.
func NewTimer() *Timer {
	c := make(chan struct{}, 1)
	return &Timer{C: c, alarm: newAlarm(c)}
}

// Reset sets the timer to an instant, also one that has passed, and forgets an alarm that was not
// received yet.
func (t *Timer) Reset(at Instant) {
	t.set(at)
	select {
	case <-t.C:
		// It may have been the new alarm; a second setting brings that one back.
		t.set(at)
	default:
	}
}

// Close ends the timer.
func (t *Timer) Close() { t.close() }

func ring(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pollEvery is how often a poller usually looks at the clock.
const pollEvery = 100 * time.Millisecond

// poller is the alarm where the kernel offers none on the boot clock: it looks at the clock at
// least every so often, so it may be late by as much after a suspend.
type poller struct {
	every time.Duration
	at    chan Instant
	done  chan struct{}
}

func newPoller(c chan<- struct{}, every time.Duration) *poller {
	p := &poller{every: every, at: make(chan Instant), done: make(chan struct{})}
	go p.run(c)
	return p
}

func (p *poller) run(c chan<- struct{}) {
	tick := time.NewTimer(time.Hour)
	tick.Stop()
	defer tick.Stop()
	var at Instant
	for {
		select {
		case <-p.done:
			return
		case at = <-p.at:
		case <-tick.C:
		}
		left := at.Until()
		if left <= 0 {
			ring(c)
			continue
		}
		tick.Reset(min(left, p.every))
	}
}

func (p *poller) set(at Instant) { p.at <- at }

func (p *poller) close() { close(p.done) }
