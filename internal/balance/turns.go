package balance

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
)

const (
	// silence is how long a member that has requests to answer answers none until others are
	// asked: as long as checking a few passwords takes it.
	silence = 250 * time.Millisecond

	// again is how often a silent member is asked for all that.
	again = 10 * time.Second
)

// A member is one connection, and what was seen of it.
type member struct {
	conn    balancer.SubConn
	address string
	pending int       // requests without an answer
	since   time.Time // of which none was answered, while there are any
	silent  bool      // it did not answer the last one before that was given up
	asked   time.Time // last, since it is silent
}

// turns has the members of a client, and whose turn it is.
type turns struct {
	mu      sync.Mutex
	members []*member
	next    int
}

// Build takes note of which members are connected. What was seen of a connection is kept.
func (t *turns) Build(info base.PickerBuildInfo) balancer.Picker {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.members == nil {
		t.next = rand.Int()
	}
	var members []*member
	for conn, c := range info.ReadySCs {
		i := slices.IndexFunc(t.members, func(m *member) bool { return m.conn == conn })
		if i >= 0 {
			members = append(members, t.members[i])
		} else {
			members = append(members, &member{conn: conn, address: c.Address.Addr})
		}
	}
	slices.SortFunc(members, func(a, b *member) int { return cmp.Compare(a.address, b.address) })
	t.members = members
	if len(members) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	return t
}

// Pick chooses a member for a request.
func (t *turns) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.members) == 0 { // this picker is not the last one any more
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	now := time.Now()
	m := t.chooseLocked(now)
	switch info.FullMethodName {
	case pb.Watch_Watch_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName: // they last
		return balancer.PickResult{SubConn: m.conn}, nil
	}
	if m.pending == 0 {
		m.since = now
	}
	m.pending++
	return balancer.PickResult{SubConn: m.conn, Done: func(d balancer.DoneInfo) { t.done(m, d.BytesReceived) }}, nil
}

// chooseLocked returns the next member that answers, or that is silent and was not asked for long.
// If all are silent, it is the next one. It is called with mu locked.
func (t *turns) chooseLocked(now time.Time) *member {
	n := len(t.members)
	for i := range n {
		at := (t.next%n + i) % n
		if m := t.members[at]; m.mayBeAsked(now) {
			t.next = at + 1
			return m
		}
	}
	m := t.members[t.next%n]
	t.next = t.next%n + 1
	return m
}

func (m *member) mayBeAsked(now time.Time) bool {
	switch {
	case !m.silent && (m.pending == 0 || now.Sub(m.since) < silence):
		m.asked = time.Time{}
		return true
	case m.asked.IsZero():
		m.asked = now
	case now.Sub(m.asked) > again:
		m.asked = now
		return true
	}
	return false
}

// done is told that a request to a member has ended.
func (t *turns) done(m *member, answered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	m.pending--
	switch {
	case answered:
		m.since, m.silent = now, false
	case now.Sub(m.since) >= silence:
		m.silent, m.asked = true, now
	}
}
