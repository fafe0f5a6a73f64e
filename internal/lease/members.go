package lease

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/oplimit"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Member is a contender whose place hangs on the lease. Its methods must not block.
type Member interface {
	// Slot returns the part of the member that belongs to the lease.
	Slot() *Slot

	// StateRead returns the operations that read its state, none if it has no place yet, and what
	// applies the answers to them, which begin with the n-th.
	StateRead() (ops []*pb.RequestOp, apply func(resp *pb.TxnResponse, n int))

	OnUnreadable(err error) // its state was to be read, and that was refused
	IsUnreadable() bool     // the same was the case the last time
	OnRenewed()             // the lease was renewed
	OnGrace() (held bool)   // validity ends within the grace; it reports whether the lock was held
	OnExpired() (held bool) // validity has ended; the same
	OnLeaseLost(err error)  // the lease is useless: ErrGone, ErrHistoryLost, or why it was retired
	LookAfter()             // it has lasted for long enough, since DeferCare
}

// A Remnant is something under the lease that has to be removed when it appears.
type Remnant interface {
	OnRenewed()  // the lease was renewed
	Forget()     // the lease is given up, and takes the remnant along
	Lasts() bool // it may be there for as long as the lease
}

// A Slot is the part of a member that belongs to its lease. The zero Slot is that of a member that
// was not added.
type Slot struct {
	used     bool
	index    int  // in members.all
	unread   bool // the state is about to be read
	deferred bool // it is about to be looked after
}

// members are those of a lease, and what is done for all of them together.
type members struct {
	oplimit.Limit

	mu       sync.Mutex
	timing   Timing // written while there are no members
	log      *slog.Logger
	all      []Member
	next     int // whose state is read at the next renewal
	unread   []Member
	deferred []Member // are looked after from the next but one run of lookAfter on
	due      []Member // from the next one on
	remnants []Remnant
	probe    string        // a key that may be read if no member has a state to be read, or empty
	probed   chan struct{} // receives when there is one again
	reads    bool          // the reader runs
	renews   bool          // the renewer and the watchdog run
	over     error         // why the lease is useless
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// add takes a member in, and returns why the lease is useless, if it is.
func (s *members) add(m Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reviveLocked()
	slot := m.Slot()
	slot.used, slot.index = true, len(s.all)
	s.all = append(s.all, m)
	return s.over
}

// reviveLocked has the lease run again what runs in the background. It is called with mu locked.
func (s *members) reviveLocked() {
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancel(context.Background())
	}
}

// remove lets a member go, and reports whether it was one, and the last one.
func (s *members) remove(m Member) (was, empty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := m.Slot()
	if !slot.used {
		return false, false
	}
	last := len(s.all) - 1
	s.all[slot.index] = s.all[last]
	s.all[slot.index].Slot().index = slot.index
	s.all[last] = nil
	s.all = s.all[:last]
	slot.used = false
	return true, last == 0
}

// Close ends the goroutines of the lease and waits for them. The lease itself stays.
func (s *members) Close() {
	s.mu.Lock()
	if s.ctx == nil {
		s.mu.Unlock()
		return
	}
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
	s.forgetRemnants()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx, s.renews, s.reads, s.unread = nil, false, false, nil
}

// everybody returns the members as they are now.
func (s *members) everybody() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// tell tells all members something, and reports whether one of them holds its lock.
func (s *members) tell(do func(Member) bool) (held bool) {
	for _, m := range s.everybody() {
		held = do(m) || held
	}
	return held
}

// Go runs something in the background, until the lease is closed or not renewed any more. It
// reports whether it does.
func (s *members) Go(do func(context.Context)) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return false
	}
	ctx := s.ctx
	s.running.Go(func() { do(ctx) })
	return true
}

// Retire says why the lease is useless, and returns the members, which have to be told. A member
// that is added later is told when it is added.
func (s *members) Retire(why error) []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = cmp.Or(s.over, why)
	return slices.Clone(s.all)
}

// Err returns why the lease is useless, nil if it is not, as far as is known.
func (s *members) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// StopRenewing ends the renewals and all that runs in the background. It does not wait for that.
func (s *members) StopRenewing() {
	s.Retire(ErrGone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

// SetProbe names a key that may be read if no member has a state to be read.
func (s *members) SetProbe(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == "" {
		select {
		case s.probed <- struct{}{}:
		default:
		}
	}
	s.probe = key
}

func (s *members) probeKey() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probe
}

// forgetProbe is told that a key may not be read any more.
func (s *members) forgetProbe(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probe == key {
		s.probe = ""
	}
}

// careAfter is how long a member has to last, at most, before it is looked after: long enough that
// short holdings do without watches, short enough to notice an operator's hand within 50 ms.
const careAfter = 25 * time.Millisecond

// deferCare has a member looked after once it has lasted for about careAfter, or now. One timer
// serves all: a timer for each holding would cost more than everything else that is done for a
// short one.
func (s *members) deferCare(m Member, now bool) {
	if now {
		go m.LookAfter()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := m.Slot()
	if slot.deferred {
		return
	}
	slot.deferred = true
	if len(s.deferred)+len(s.due) == 0 {
		time.AfterFunc(careAfter/2, s.lookAfter)
	}
	s.deferred = append(s.deferred, m)
}

// lookAfter looks after those that are due. What was deferred since the last time is due the next
// time.
func (s *members) lookAfter() {
	s.mu.Lock()
	due := s.due
	s.due, s.deferred = s.deferred, nil
	if len(s.due) > 0 {
		time.AfterFunc(careAfter/2, s.lookAfter)
	}
	for _, m := range due {
		m.Slot().deferred = false
	}
	s.mu.Unlock()
	for _, m := range due {
		m.LookAfter()
	}
}

// membersAtOnce returns of how many members the state is read at once.
func (s *members) membersAtOnce() int { return max(s.OpsAtOnce()/wire.OpsOfState, 1) }

// inTurn returns the members, others first each time, and of how many the state is read at once.
func (s *members) inTurn() (all []Member, atOnce int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil, 1
	}
	first := s.next % len(s.all)
	atOnce = s.membersAtOnce()
	s.next = first + min(atOnce, len(s.all))
	return slices.Concat(s.all[first:], s.all[:first]), atOnce
}

// nextUnread returns members whose state is to be read; without any, the reader has ended.
func (s *members) nextUnread() []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.unread), s.membersAtOnce())
	some := s.unread[:n:n]
	s.unread = s.unread[n:]
	for _, m := range some {
		m.Slot().unread = false
	}
	if s.reads = n > 0; !s.reads {
		s.unread = nil
	}
	return some
}

// mostRemnants is how many remnants that last a lease may have before it gets no new members, who
// could leave more of them. Each costs a watch, and a read for each renewal.
const mostRemnants = 8

// IsCrowded reports whether the lease should get no new members.
func (s *members) IsCrowded() bool {
	last := 0
	for _, r := range s.everyRemnant() {
		if r.Lasts() {
			last++
		}
	}
	return last >= mostRemnants
}

// Track has a remnant told of renewals. It reports false if the lease is useless, and takes the
// remnant along.
func (s *members) Track(r Remnant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil || s.ctx == nil || s.ctx.Err() != nil {
		return false
	}
	s.remnants = append(s.remnants, r)
	return true
}

// Untrack ends that.
func (s *members) Untrack(r Remnant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remnants = slices.DeleteFunc(s.remnants, func(one Remnant) bool { return one == r })
}

func (s *members) everyRemnant() []Remnant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.remnants)
}

func (s *members) forgetRemnants() {
	for _, r := range s.everyRemnant() {
		s.Untrack(r)
		r.Forget()
	}
}
