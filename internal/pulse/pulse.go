//go:build unix

// Package pulse watches over the signs of life of a command, so that one that hangs does not keep
// its lock.
//
// There is one mechanism, a Monitor, and three sources of signs: the answers of a Node.js module to
// pings, the datagrams of a program that knows systemd's watchdog, and the ends of another command
// that is run for that.
//
//	  +-----------interval-----------+
//	  v                              |
//	asked ----------sign---------> at rest
//	  |  not well yet: asked again after the interval, the limit stays
//	  +--limit--> silent
//	  +--a wrong sign, also at rest--> in trouble
//	  +--what may be the end of the command, also at rest--> parting --> in trouble
//
// In trouble the command is ended. If it was told to stop before, only silence counts, and the
// watch goes on.
package pulse

import (
	"fmt"
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A Source is where signs come from.
type Source interface {
	// Given returns what the command needs in order to give signs: variables, and a descriptor of a
	// channel, which is 0 if the source has none.
	Given() (env []string, channel int)

	// Begin says that the command has started.
	Begin()

	// Ask asks for a sign. It does not wait. With some sources it does nothing: their signs come
	// unasked.
	Ask()

	// Heard receives what is heard of the command.
	Heard() <-chan News

	// Silence says that no sign has come within a limit.
	Silence(limit time.Duration) supervise.Trouble

	// Close ends it. Nothing is heard any more.
	Close()
}

// News is what is heard of a command. Without a trouble it is a sign of life.
type News struct {
	Trouble error         // what shows that the command is not well
	NotYet  bool          // it need not be before the first limit is over
	Parting bool          // it may be the end of the command, which then follows soon
	Last    bool          // nothing more will be heard
	Within  time.Duration // the limit for the next sign, if it is another one than usual
}

// A teller passes on what a source hears, until it is closed.
type teller struct {
	heard chan News
	quit  chan struct{}
}

func newTeller() teller { return teller{heard: make(chan News), quit: make(chan struct{})} }

// Heard receives what is heard.
func (t *teller) Heard() <-chan News { return t.heard }

func (t *teller) tell(news News) {
	select {
	case t.heard <- news:
	case <-t.quit:
	}
}

// A Problem says what is wrong with a command, and the way out.
type Problem struct{ What, Hint string }

// Error says what is wrong.
func (p *Problem) Error() string { return p.What }

func problem(hint, format string, args ...any) error {
	return &Problem{What: fmt.Sprintf(format, args...), Hint: hint}
}

// Limits are the times that a command is allowed.
type Limits struct {
	First    time.Duration // from the start to the first sign
	Next     time.Duration // from each question to the sign
	Interval time.Duration // from a sign to the next question; 0 for signs that come unasked
}

// settle is for how long a sign that is late is still looked for: it may have come in time to this
// process, which did not run.
const settle = 100 * time.Millisecond

// parting is for how long a command may go on after what may be its end: a channel or a port is
// closed before the process is gone.
const parting = 5 * time.Second

// absence is how late the end of a limit must be noticed to show that this process was stopped, or
// the machine overloaded. Then nobody knows what the command would have done, and it is given the
// whole limit again.
const absence = time.Second

// A Monitor waits for signs of one source.
type Monitor struct {
	source  Source
	limits  Limits
	trouble chan supervise.Trouble
	still   supervise.Latest
	stop    chan struct{}
	quit    chan struct{}
	done    chan struct{}

	limit     time.Duration // that holds now
	deadline  time.Time     // for a sign; zero: none is due
	ask       time.Time     // when to ask; zero: it was asked
	settling  bool
	held      bool  // the command stands still
	disturbed bool  // it has done so since it was asked
	pending   *News // trouble that may be the end of the command
	over      bool  // nothing more will be heard
}

// Watch begins to watch over a command that has just been started. A nil source gives a monitor
// that never says anything.
func Watch(source Source, limits Limits) *Monitor {
	if source == nil {
		return nil
	}
	m := &Monitor{
		source:  source,
		limits:  limits,
		trouble: make(chan supervise.Trouble, 1),
		still:   make(supervise.Latest, 1),
		stop:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		limit:   limits.First,
	}
	go m.run()
	return m
}

// Trouble receives when the command is not well, perhaps more than once.
func (m *Monitor) Trouble() <-chan supervise.Trouble {
	if m == nil {
		return nil
	}
	return m.trouble
}

// Paused says whether the command stands still, and cannot give signs. When it goes on it has the
// whole limit again. One goroutine calls it.
func (m *Monitor) Paused(is bool) {
	if m != nil {
		m.still.Put(is)
	}
}

// Stopping says that the command was told to stop. For that it has the first limit, at least.
func (m *Monitor) Stopping() {
	if m != nil {
		select {
		case m.stop <- struct{}{}:
		default:
		}
	}
}

// Close ends the watch.
func (m *Monitor) Close() {
	if m != nil {
		close(m.quit)
		<-m.done
	}
}

func (m *Monitor) run() {
	defer close(m.done)
	m.ask = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !m.over {
		m.arm(timer)
		select {
		case <-timer.C:
			m.tick(time.Now())
		case news := <-m.source.Heard():
			m.heard(time.Now(), news)
		case m.held = <-m.still:
			m.disturbed = true
			if !m.deadline.IsZero() {
				m.allow(time.Now())
			}
		case <-m.stop:
			m.limits.Next = max(m.limits.Next, m.limits.First)
			if m.pending == nil {
				m.limit = max(m.limit, m.limits.First)
				if !m.deadline.IsZero() {
					m.allow(time.Now())
				}
			}
		case <-m.quit:
			return
		}
	}
}

// arm sets the timer to what is due next.
func (m *Monitor) arm(timer *time.Timer) {
	next := m.ask
	if next.IsZero() || !m.deadline.IsZero() && m.deadline.Before(next) {
		next = m.deadline
	}
	if m.held {
		timer.Stop()
		return
	}
	timer.Reset(time.Until(next))
}

// allow gives the command the whole limit from now on.
func (m *Monitor) allow(now time.Time) { m.deadline, m.settling = now.Add(m.limit), false }

// rest waits for the next question.
func (m *Monitor) rest(now time.Time) {
	m.ask, m.limit, m.deadline = now.Add(m.limits.Interval), m.limits.Next, time.Time{}
}

// tick does what is due.
func (m *Monitor) tick(now time.Time) {
	switch {
	case !m.deadline.IsZero() && !now.Before(m.deadline):
		switch {
		case now.Sub(m.deadline) > absence:
			m.allow(now)
		case m.pending != nil:
			news := *m.pending
			m.pending = nil
			m.report(supervise.Trouble{Why: news.Trouble}, news.Last)
			m.rest(now)
		case !m.settling:
			m.settling, m.deadline = true, now.Add(settle)
		default:
			trouble := m.source.Silence(m.limit)
			m.report(trouble, trouble.Silent)
			m.rest(now)
		}
	case !m.ask.IsZero() && !now.Before(m.ask):
		m.ask, m.disturbed = time.Time{}, false
		if m.deadline.IsZero() {
			m.allow(now)
		}
		m.source.Ask()
	}
}

// report says what is wrong. Whoever hears it may have good reasons not to care, so the watch goes
// on unless it is the last.
func (m *Monitor) report(t supervise.Trouble, last bool) {
	m.over = last
	select {
	case m.trouble <- t:
	default: // the one before was not heard yet
	}
}

// heard takes news.
func (m *Monitor) heard(now time.Time, news News) {
	switch {
	case m.pending != nil: // nothing takes that back
	case news.Trouble == nil:
		m.rest(now)
		if news.Within > 0 {
			m.limit = news.Within
		}
	case news.NotYet:
		m.ask = now.Add(m.limits.Interval)
	case m.disturbed && news.Parting && !news.Last:
		m.rest(now) // that may be why
	case news.Parting || m.held:
		m.pending, m.ask, m.limit = &news, time.Time{}, parting
		m.allow(now)
	default:
		m.report(supervise.Trouble{Why: news.Trouble}, news.Last)
		m.rest(now)
	}
}
