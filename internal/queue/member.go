package queue

import (
	"errors"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/translate"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A member is a driver whose machine hears of what its lease and its watches tell: it is a
// lease.Member, a lease.Remnant, and a watch.Owner.
type member struct {
	driver
	slot      lease.Slot
	confirmed atomic.Bool // the lock is held, and there is time to use it
	renewed   atomic.Bool // the lease was renewed
}

// Slot returns the part of the member that belongs to the lease.
func (m *member) Slot() *lease.Slot { return &m.slot }

// LookAfter has the contender looked after: it has lasted for long enough. Who waits comes here
// again when it holds the lock.
func (m *member) LookAfter() {
	if m.state() < standing.Leaving {
		m.step(message.Lasting{})
		m.Lease.Maintain()
	}
}

// StateRead returns what reads the contender's state: K and its place, and what stands before it,
// if anything does.
func (m *member) StateRead() (ops []*pb.RequestOp, apply func(resp *pb.TxnResponse, n int)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m.Created() <= 0 || m.m.State >= standing.Leaving {
		return nil, nil
	}
	ahead, seat := m.m.Ahead(), m.m.Seat
	// Who stands there now may have left, and be seen there all the same.
	stands := m.Lease.Places.Stands(ahead)
	return wire.StateOps(m.Place.At(seat).LockKey(), m.Place.Key, ahead), func(resp *pb.TxnResponse, n int) {
		m.sight.end.Store(0)
		o := translate.Observation(resp, n, seat, ahead)
		m.step(o)
		if !stands {
			doubt(m.Options, ahead, o.Ahead)
		}
	}
}

// OnRenewed is told of a renewal.
func (m *member) OnRenewed() {
	if m.sight.isLost() {
		m.Lease.ScheduleRead(m)
	}
	m.renewed.Store(true)
	m.step(message.Renewed{})
	if m.OnRenew != nil && m.state() == standing.Held {
		m.Lease.Notices.Post(m.OnRenew)
	}
}

// OnGrace is told that validity ends within the grace, and reports whether the lock was held.
func (m *member) OnGrace() (held bool) {
	if held = m.confirmed.Load(); held {
		m.step(message.GraceBegun{})
	}
	return held && m.state() < standing.Leaving
}

// OnExpired is told that validity has ended, and reports whether the lock was held.
func (m *member) OnExpired() bool {
	if !m.confirmed.Load() || m.state() >= standing.Leaving {
		return false
	}
	m.step(message.ValidityOver{})
	return true
}

// OnLeaseLost is told that the lease is useless.
func (m *member) OnLeaseLost(err error) {
	m.step(message.LeaseLost{History: errors.Is(err, lease.ErrHistoryLost)})
}

// Lasts reports whether a remnant may be there for as long as the lease: no answer can come to some
// request to join, or it is there since before a renewal.
func (m *member) Lasts() bool { return m.sender.IsDoubtful() || m.renewed.Load() }

// Forget is told that the lease is given up, and takes along what is left.
func (m *member) Forget() { m.step(message.LeaseLost{}) }

// OnCreated is told of a watch that etcd has created.
func (m *member) OnCreated(w *watch.Watch, since int64, again bool) {
	m.stepFor(w, func(of message.Watched) message.Input {
		return message.Watching{Of: of, Since: since, Again: again}
	})
}

// OnEvents is told of what happened to a key that is watched. After etcd was wiped its events are
// not those of our place: then a read tells.
func (m *member) OnEvents(w *watch.Watch, events []*mvccpb.Event, h *pb.ResponseHeader) {
	if !m.Lease.IsFrom(h) {
		m.Lease.ScheduleRead(m)
		return
	}
	for _, e := range events {
		m.stepFor(w, func(of message.Watched) message.Input { return translate.Event(m.Place, of, e) })
	}
}

func (m *member) state() standing.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m.State
}
