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
	asked   time.Time // last
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
	switch info.FullMethodName {
	case pb.Watch_Watch_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName:
		// They last, and nothing is learnt from them: a silent member would keep them.
		return balancer.PickResult{SubConn: t.chooseLocked((*member).answers, now).conn}, nil
	}
	m := t.chooseLocked((*member).mayBeAsked, now)
	if m.pending == 0 {
		m.since = now
	}
	m.pending++
	m.asked = now
	return balancer.PickResult{SubConn: m.conn, Done: func(d balancer.DoneInfo) { t.done(m, d.BytesReceived) }}, nil
}

// chooseLocked returns the next member that will do, or just the next one if there is no such
// member. It is called with mu locked.
func (t *turns) chooseLocked(willDo func(*member, time.Time) bool, now time.Time) *member {
	n := len(t.members)
	first := t.next % n
	t.next = first + 1
	for i := range n {
		if at := (first + i) % n; willDo(t.members[at], now) {
			t.next = at + 1
			break
		}
	}
	return t.members[t.next-1]
}

func (m *member) answers(now time.Time) bool {
	return !m.silent && (m.pending == 0 || now.Sub(m.since) < silence)
}

func (m *member) mayBeAsked(now time.Time) bool {
	return m.answers(now) || now.Sub(m.asked) > again
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
		m.silent = true
	}
}
