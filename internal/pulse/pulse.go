//go:build unix

// Package pulse watches over the signs of life of a command, so that one that hangs does not hold its lock for ever.
//
// There is one mechanism, a Monitor, and three sources of signs: the answers of a Node.js module to pings, the datagrams of a
// program that knows systemd's watchdog, and the ends of another command that is run for that.
//
//	  ┌────────────interval────────────┐
//	asked ──────────sign──────────▶ at rest
//	  │  not well yet: asked again after the interval, the limit stays
//	  ├──limit──▶ silent
//	  └──a wrong sign, or the end of all signs, also at rest──▶ in trouble
package pulse

import (
	"time"

	"github.com/etcdlock/etcdlock/internal/supervise"
)

// A Source is where signs come from.
type Source interface {
	// Given returns what the command needs in order to give signs: variables, and a descriptor of a channel, which is negative
	// if there is none.
	Given() (env []string, channel int)

	// Begin says that the command has started.
	Begin()

	// Ask asks for a sign. It does not wait. With some sources it does nothing: their signs come unasked.
	Ask()

	// Heard receives what is heard of the command.
	Heard() <-chan News

	// Silence says that no sign has come within a limit.
	Silence(limit time.Duration) error

	// Close ends it. Nothing is heard any more.
	Close()
}

// News is what is heard of a command. Without an error it is a sign of life.
type News struct {
	Trouble error         // what shows that the command is not well
	NotYet  bool          // it need not be before the first limit is over
	Within  time.Duration // the limit for the next sign, if it is another one than usual
}

// Limits are the times that a command is allowed.
type Limits struct {
	First    time.Duration // from the start to the first sign
	Next     time.Duration // from each question to the sign
	Interval time.Duration // from a sign to the next question; 0 for signs that come unasked
}

// settle is for how long a sign that is late is still looked for: it may have come in time to this process, which did not
// run.
const settle = 100 * time.Millisecond

// absence is how late the end of a limit must be noticed to show that this process was stopped, or the machine overloaded.
// Then nobody knows what the command would have done, and it is given the whole limit again.
const absence = time.Second

// A Monitor waits for signs of one source.
type Monitor struct {
	source  Source
	limits  Limits
	trouble chan supervise.Trouble
	still   chan bool
	quit    chan struct{}
	done    chan struct{}

	limit    time.Duration // that holds now
	deadline time.Time     // for a sign; zero: none is due
	ask      time.Time     // when to ask; zero: it was asked
	settling bool
	held     bool
}

// Watch begins to watch over a command that has just been started. A nil source gives a monitor that never says anything.
func Watch(source Source, limits Limits) *Monitor {
	if source == nil {
		return nil
	}
	m := &Monitor{
		source:  source,
		limits:  limits,
		trouble: make(chan supervise.Trouble, 1),
		still:   make(chan bool),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		limit:   limits.First,
	}
	go m.run()
	return m
}

// Trouble receives once, if the command is not well.
func (m *Monitor) Trouble() <-chan supervise.Trouble {
	if m == nil {
		return nil
	}
	return m.trouble
}

// Still says whether the command stands still, and cannot give signs. When it goes on it has the whole limit again.
func (m *Monitor) Still(is bool) {
	if m == nil {
		return
	}
	select {
	case m.still <- is:
	case <-m.done:
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
	for {
		m.arm(timer)
		var trouble *supervise.Trouble
		select {
		case <-timer.C:
			trouble = m.tick(time.Now())
		case news := <-m.source.Heard():
			trouble = m.heard(time.Now(), news)
		case m.held = <-m.still:
			if !m.held && !m.deadline.IsZero() {
				m.allow(time.Now())
			}
		case <-m.quit:
			return
		}
		if trouble != nil {
			m.trouble <- *trouble
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

// tick does what is due.
func (m *Monitor) tick(now time.Time) *supervise.Trouble {
	if !m.deadline.IsZero() && !now.Before(m.deadline) {
		switch {
		case now.Sub(m.deadline) > absence:
			m.allow(now)
		case !m.settling:
			m.settling, m.deadline = true, now.Add(settle)
		default:
			return &supervise.Trouble{Silent: true, Why: m.source.Silence(m.limit)}
		}
		return nil
	}
	if !m.ask.IsZero() && !now.Before(m.ask) {
		m.ask = time.Time{}
		if m.deadline.IsZero() {
			m.allow(now)
		}
		m.source.Ask()
	}
	return nil
}

// heard takes news.
func (m *Monitor) heard(now time.Time, news News) *supervise.Trouble {
	if news.Trouble != nil && !news.NotYet {
		return &supervise.Trouble{Why: news.Trouble}
	}
	m.ask = now.Add(m.limits.Interval)
	if news.Trouble == nil {
		m.limit, m.deadline, m.settling = m.limits.Next, time.Time{}, false
		if news.Within > 0 {
			m.limit = news.Within
		}
	}
	return nil
}
