package queue

import (
	"context"
	"sync/atomic"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// A sight is whether etcd lets a contender read its state.
type sight struct {
	end atomic.Int64 // when validity was to end when the state could not be read any more; or 0
	why error        // that is so; guarded by driver.mu
}

func (s *sight) isLost() bool { return s.end.Load() != 0 }

// ValidUntil returns when validity ends: that of the lease, or sooner if our state cannot be read.
func (d *driver) ValidUntil() boottime.Instant {
	end := d.Lease.ValidUntil()
	if blind := d.sight.end.Load(); blind != 0 {
		end = min(end, boottime.Instant(blind))
	}
	return end
}

// Why returns why validity has ended, as far as it is known.
func (d *driver) Why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.whyLocked()
}

func (d *driver) whyLocked() error {
	if d.sight.isLost() {
		return d.sight.why
	}
	return d.Lease.LastError()
}

// IsUnreadable reports whether etcd did not let us read the state the last time.
func (m *member) IsUnreadable() bool { return m.sight.isLost() }

// OnUnreadable is told that etcd does not let us read the state. If that lasts, validity ends when
// it would have ended without a further renewal: a shared lease is renewed for others.
func (m *member) OnUnreadable(err error) {
	m.mu.Lock()
	m.sight.why = err
	m.mu.Unlock()
	end := m.Lease.ValidUntil()
	switch {
	case m.sight.end.CompareAndSwap(0, int64(end)):
		m.Lease.Go(func(ctx context.Context) { m.watchClock(ctx, end) })
	case !m.confirmed.Load() && m.ValidUntil().Until() <= 0: // then its token was refused
		m.endWait()
	}
}

// watchClock does for a contender that is not read what the watchdog does for all: it watches the
// clock, as long as nothing is read. It has the state read again before each end: the renewal
// behind which it would be read may come later.
func (m *member) watchClock(ctx context.Context, end boottime.Instant) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for _, at := range []boottime.Instant{end.Add(-m.Timing.Grace), end} {
		for _, next := range []boottime.Instant{at.Add(-2 * m.Lease.First()), at} {
			if !lease.SleepUntil(ctx, timer, next) || m.sight.end.Load() != int64(end) {
				return
			}
			m.Lease.ScheduleRead(m)
		}
		switch {
		case !m.confirmed.Load():
			m.endWait()
		case at == end:
			m.step(message.ValidityOver{})
		default:
			m.step(message.GraceBegun{})
		}
	}
}

// endWait ends the wait if the user may not read: a grant would not be noticed. A refused token, as
// after an outage, does not end it.
func (m *member) endWait() {
	m.mu.Lock()
	why := m.sight.why
	denied := retry.IsDenied(why)
	if denied {
		m.unread = why
	}
	m.mu.Unlock()
	if denied {
		m.step(message.Unreadable{})
	}
}
