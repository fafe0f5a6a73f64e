package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcdlock/etcdlock/internal/guard"
	"github.com/etcdlock/etcdlock/internal/validity"
)

// measuresKept is how many of the last measures count. A processor that was waited for once may
// have to be waited for again.
const measuresKept = 8

// measures are what a guard has found that it would take to end its command.
type measures struct {
	source atomic.Pointer[guard.Command]

	mu   sync.Mutex
	kept []guard.Measure
}

// of has the measures come from a command, unless it is nil.
func (m *measures) of(c guard.Command) {
	if c != nil {
		m.source.Store(&c)
	}
}

// last returns the last measure, with the longest times of those kept, if there is one.
func (m *measures) last() (last guard.Measure, ok bool) {
	if source := m.source.Load(); source != nil {
		last, ok = (*source).Measured()
	}
	if !ok {
		return last, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = append(m.kept, last)
	m.kept = m.kept[max(0, len(m.kept)-measuresKept):]
	for _, k := range m.kept {
		last.WakeUp, last.Walk = max(last.WakeUp, k.WakeUp), max(last.Walk, k.Walk)
	}
	return last, true
}

// margin returns by how much sooner than usual the command has to be ended. It says so once if
// little or nothing is left of what the TTL has room for.
func (h *holder) margin() time.Duration {
	if h.run.path == "" {
		return 0
	}
	extra := h.measuredMargin()
	h.extra.Store(int64(extra))
	return extra
}

// allowed is what the end of validity allows for beyond the usual margin.
func (h *holder) allowed() time.Duration { return time.Duration(h.extra.Load()) }

func (h *holder) measuredMargin() time.Duration {
	m, ok := h.run.last()
	extra, most := m.Extra(), validity.MaxExtra(h.ttl, h.refresh, h.grace)
	if ok {
		h.sayMargin(m, extra, most)
	}
	return min(extra, most)
}

func (h *holder) sayMargin(m guard.Measure, extra, most time.Duration) {
	h.voice.logger(h.verbose).Debug("measured", "processes", m.Processes, "walk", m.Walk, "wait_for_processor", m.WakeUp, "margin_beyond_usual", extra)
	if extra > most*3/4 {
		h.tight.Do(func() {
			what := "the command"
			if m.Processes > 1 {
				what = fmt.Sprintf("%d processes", m.Processes)
			}
			h.voice.warnf("%s: ending %s can take %v longer than usual (the guard may wait %v for a processor), and %v is the most that a TTL of %v has room for",
				h.keys.locks(), what, extra.Round(time.Millisecond), m.WakeUp.Round(time.Millisecond), most.Round(time.Millisecond), h.ttl)
			h.voice.hintf("use a longer --ttl, or a shorter --grace, or give this job a less busy machine")
		})
	}
}
