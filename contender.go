package etcdlock

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// answer is what etcd answers to a transaction.
type answer = pb.TxnResponse

// A contender is one place in line under a lease, from the request to join until nothing of it is left. It has no goroutine of
// its own: whoever waits for the lock drives it while it waits, and those of its lease look after it.
type contender struct {
	settings
	owner  *Lock
	held   Held // it, for the user
	key    string
	lease  *lease.Lease
	place  wire.Place
	alone  bool   // nobody was met the last time
	strays bool   // writes that name the place may still be on their way
	joins  *joins // the requests to join that were made

	token atomic.Int64 // 0 while waiting
	holds atomic.Bool  // the lock is held, and there was time to use it
	asked atomic.Bool  // the holding was asked to end, and not its lock or its session
	blind atomic.Int64 // when validity was to end when its state could not be read any more; or 0
	ends  atomic.Bool  // what is asked of etcd is of no use any more when validity has ended

	slot lease.Slot

	news    chan struct{} // something has happened that who waits must know
	expired chan struct{} // the lock may be somebody else's
	over    chan struct{} // the holding has been unlocked

	mu      sync.Mutex
	left    bool // nothing is to be concluded any more
	settled bool // it is looked after
	lost    *LostError
	handed  map[*handed]struct{} // the contexts
	line    standing

	unreadable error // why the state could not be read the last time
}

func newContender(l *Lock, s settings, ls *lease.Lease) *contender {
	c := &contender{
		settings: s,
		owner:    l,
		key:      l.key,
		lease:    ls,
		place:    l.nextPlace(ls, s.command),
		alone:    l.alone,
		news:     make(chan struct{}, 1),
		expired:  make(chan struct{}),
		over:     make(chan struct{}),
		joins:    new(joins),
	}
	c.held.c = c
	if ls.IsShared() { // it was granted with settings of its own
		c.timing = ls.Timing()
	}
	if err := ls.Add(c, c.timing, c.log); err != nil {
		c.doom(fmt.Errorf("%w: %w", errStartOver, err))
	}
	return c
}

// stop ends what is done for the contender. What was sent for it may still be applied.
func (c *contender) stop() {
	c.mu.Lock()
	c.left = true
	watches := c.line.end()
	c.mu.Unlock()
	c.lease.Cancel(watches...)
	c.lease.Remove(c)
}

// Slot is that of a lease.Member, like the methods that begin with On.
func (c *contender) Slot() *lease.Slot { return &c.slot }

// StartWatches has the contender looked after: it has lasted for long enough.
func (c *contender) StartWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return
	}
	c.settled = true
	c.lease.Maintain()
	if c.token.Load() != 0 {
		c.watchHeld()
	}
}

// granted starts what a holder needs.
func (c *contender) granted() {
	c.log.Debug("lock acquired", "key", c.key, "token", c.token.Load())
	c.holds.Store(true)
	c.mu.Lock()
	settled := c.settled
	if settled { // it has waited
		c.watchHeld()
	}
	c.mu.Unlock()
	if !settled {
		c.lease.DeferWatches(c)
	}
	// Time may have stood still for us, and the keeper may have passed us over.
	if c.lease.ValidUntil().Until() <= c.Grace {
		c.lease.Ring()
	}
	c.lease.SetProbe(c.key)
	if err := c.lease.Err(); err != nil {
		c.OnLeaseLost(err)
	}
}

// say writes a message to the lock's logger, some time later.
func (c *contender) say(level slog.Level, message string, args ...any) {
	c.lease.Notices.Log(c.log, level, message, args...)
}

func (c *contender) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// win takes note that a revision made the contender the holder.
func (c *contender) win(create, token int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line.create = create
	c.token.Store(token)
}

// OnCreated is told of a watch that etcd has confirmed. What came before that is only seen by
// reading.
func (c *contender) OnCreated(w *watch.Watch, since int64, again bool) {
	c.mu.Lock()
	look := false
	if !c.left {
		var missed bool
		if look, missed = c.line.confirmed(w, since, again); missed {
			c.rewatchTail()
		}
		c.forgetTail()
	}
	c.mu.Unlock()
	if look {
		c.lease.ScheduleRead(c)
	}
}

// OnEvents is told of what happened to a key that is watched.
func (c *contender) OnEvents(w *watch.Watch, events []*mvccpb.Event, h *pb.ResponseHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return
	}
	look := !c.lease.IsFrom(h) // etcd has been wiped: its events are not those of our place
	for _, e := range events {
		look = look || c.see(w, e)
	}
	c.forgetTail()
	if look {
		c.lease.ScheduleRead(c)
	}
	c.wake()
}

// forgetTail ends the watch on the tail once it has told who is next: the others who join are none of our business. It is called with mu locked.
func (c *contender) forgetTail() {
	if s := &c.line; s.onTail != nil && s.next != nil {
		c.lease.Cancel(s.onTail)
		s.onTail = nil
	}
}

// rewatchTail watches the tail from the revision on after which the place was created. That takes etcd up to 100 ms, and nobody waits for it.
// It is called with mu locked.
func (c *contender) rewatchTail() {
	c.lease.Cancel(c.line.onTail)
	c.line.changes, c.line.tailSince = nil, 0
	c.watchTail(c.line.create + 1)
}

// see draws conclusions from an event, and reports whether it is only a hint. It is called with mu locked.
func (c *contender) see(w *watch.Watch, e *mvccpb.Event) (look bool) {
	kv, token := e.Kv, c.token.Load()
	switch key := string(kv.Key); {
	case key == wire.Tail(c.key):
		if w == c.line.onTail { // not of one that missed something
			c.line.follow(c.key, e)
		}
		return false
	case token != 0: // held: only what made it so is no news
		return kv.ModRevision > token && (key == c.key || key == c.place.Key)
	case key == c.place.Key:
		// Nobody but a pass or a claim writes a place as it is. What creates it is our joining, or
		// a late try of that when the place is gone.
		if e.IsCreate() {
			return c.line.create > 0 && kv.ModRevision > c.line.create
		}
		if e.Type == mvccpb.PUT && kv.Lease == int64(c.lease.ID()) && string(kv.Value) == c.place.Record {
			c.line.written = kv.ModRevision
			return false
		}
		return true
	default:
		c.line.passed(c.key, e)
		return false
	}
}

// OnLeaseLost is told that the lease is useless.
func (c *contender) OnLeaseLost(err error) {
	if c.token.Load() == 0 {
		c.doom(fmt.Errorf("%w: %w", errStartOver, err))
		c.wake()
		return
	}
	reason := LeaseLost
	if errors.Is(err, lease.ErrHistoryLost) {
		reason = HistoryLost
	}
	c.lose(reason, nil)
}

// OnRenewed is told of a renewal.
func (c *contender) OnRenewed() {
	if c.blind.Load() != 0 && !c.isLost() {
		c.lease.ScheduleRead(c)
	}
	if c.onRenew != nil && c.token.Load() != 0 && !c.isLost() {
		c.lease.Notices.Post(c.onRenew)
	}
}

// OnGrace is told that validity ends within the grace.
func (c *contender) OnGrace() {
	if c.holds.Load() {
		c.lose(Unrenewed, c.lastError())
	}
}

// lastError returns why validity has ended, as far as it is known.
func (c *contender) lastError() error {
	c.mu.Lock()
	why := c.unreadable
	c.mu.Unlock()
	if c.blind.Load() != 0 {
		return why
	}
	return c.lease.LastError()
}

// OnExpired is told that validity has ended, and reports whether the lock was held.
func (c *contender) OnExpired() bool {
	if !c.holds.Load() {
		return false
	}
	c.lose(Unrenewed, c.lastError())
	c.expire()
	return true
}

// whatIsLost compares the lock's key and the holder's place with what they were when the lock was acquired:
// nothing but an operator's hand or the end of the lease changes either.
func (c *contender) whatIsLost(state wire.State) Reason {
	key, own, token := state.Key, state.Place, c.token.Load()
	switch {
	case own == nil && key == nil:
		return LeaseLost
	case own == nil || own.CreateRevision != c.create() || own.ModRevision != token:
		return PlaceLost
	case key == nil:
		return KeyDeleted
	case key.ModRevision != token:
		return KeyOverwritten
	}
	return 0
}

func (c *contender) create() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.create
}

// lose ends the contexts handed out. The first reason stays; a forced one ends validity, too.
func (c *contender) lose(reason Reason, cause error) {
	c.mu.Lock()
	if c.left && c.lost == nil { // it was given back meanwhile
		c.mu.Unlock()
		return
	}
	first := c.lost == nil
	if first {
		c.lost = c.loss(reason, cause)
	}
	c.endHolds(c.lost)
	c.mu.Unlock()
	if reason.Forced() {
		c.expire()
		c.onForcedLoss(reason)
	}
	if first {
		c.say(slog.LevelInfo, "lock lost", "key", c.key, "reason", reason)
	}
}

// onForcedLoss is told that the lock was lost by force. A lease of its own is not renewed any more.
// A shared one serves others: what is left of the lock under it is removed.
func (c *contender) onForcedLoss(reason Reason) {
	switch {
	case !c.lease.IsShared():
		c.lease.StopRenewing()
	case reason == PlaceLost:
		c.retreat()
	}
}

func (c *contender) loss(reason Reason, cause error) *LostError {
	return &LostError{Key: c.key, ID: c.place.ID, Token: c.token.Load(), Reason: reason, Err: cause}
}

// expire says that validity is over.
func (c *contender) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeExpired()
}

// closeExpired is called with mu locked. What happens to the keys does not matter any more.
func (c *contender) closeExpired() {
	if !isClosed(c.expired) {
		close(c.expired)
		c.lease.Cancel(c.line.end()...)
	}
}

func (c *contender) isExpired() bool {
	return isClosed(c.expired) || c.validUntil().Until() <= 0
}

func (c *contender) isLost() bool { return c.lostError() != nil }

// lostError returns nil as long as the lock is held. The end of validity counts even before the keeper has
// noticed it.
func (c *contender) lostError() *LostError {
	lost := c.knownLoss()
	if lost != nil || c.validUntil().Until() > 0 {
		return lost
	}
	c.lose(Unrenewed, c.lastError())
	if lost = c.knownLoss(); lost != nil {
		return lost
	}
	return c.loss(Unrenewed, c.lastError())
}

func (c *contender) knownLoss() *LostError {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// released ends the contexts handed out because the holder itself wants to be rid of the lock.
func (c *contender) released() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endHolds(errUnlocked)
	c.closeExpired()
}

// dismiss ends a contender of a session that is closed. Its lease goes.
func (c *contender) dismiss() {
	if c.token.Load() == 0 {
		c.doom(ErrClosed)
		c.wake()
		return
	}
	c.released()
	c.stop()
	c.owner.forget(c)
}
