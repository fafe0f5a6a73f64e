package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Lock is one contender for a lock on etcd. It keeps other contenders out, in this process and in
// all others, and not the goroutines that share it: two of them that call Lock on one Lock both get
// it. Those that call Run take turns.
//
// Its methods may be called from any goroutine. The exported fields are read when Lock, TryLock,
// Run or Prepare is called, and must not be written while one of them runs. How long things take is
// set in its [Session].
type Lock struct {
	// Command names the work in the record that others see in the line. Empty means the program's
	// name. Only the last element of a path is used.
	Command string

	// Logger gets debug and warning messages. Nil means none. Lock writes some of them itself, and
	// waits for a Logger that blocks. The others are written by a goroutine of their own.
	Logger *slog.Logger

	// OnWait, if set, is called each time that Lock has taken a place behind somebody else, and
	// OnRenew each time that the validity of a lock that is held has been extended. A goroutine of
	// their own calls them, one after another, some time later. They may call the Lock's methods.
	// While they block nothing else waits, and what there is no room for is not told (256 calls and
	// messages).
	OnWait, OnRenew func()

	session *Session
	key, id string

	turn chan struct{} // holds one token for the method that may change the lock's state in etcd
	runs chan struct{} // holds one token for Run

	mu      sync.Mutex
	at      *holding.Holding        // holds the lock, or lost it and was not unlocked yet
	waits   context.CancelCauseFunc // ends a Lock that waits; nil: none does
	closing int                     // how many calls of Close are under way

	// Guarded by turn:
	atHand   *lease.Lease // of its own, without a place in line
	alone    bool         // the lock was acquired at once the last time
	unlinked bool         // the tail may not be written
	place    string       // the name of the last place in line
	under    *lease.Lease // whose name it bears; nil if it must not be used again

	stamp   func() string // makes our record in the line; guarded by turn
	stamped string        // the command that it names
}

// New returns a lock that is not held, with a session of its own. Key is any 1 to 4096 bytes, taken
// as given: "/a" and "a" are two locks. Id is a label for people, at most 256 bytes of UTF-8; two
// contenders with one id are still two. TTL is that of [Session.TTL]. Nothing is sent to etcd.
//
// The client must be as clientv3.New returns it: one whose KV, Watcher or Lease were replaced, as
// etcd's namespace package does it, is refused.
func New(client *clientv3.Client, key, id string, ttl time.Duration) (*Lock, error) {
	s, err := newSession(client, ttl, false)
	if err != nil {
		return nil, err
	}
	l, err := s.NewLock(key, id)
	if err != nil {
		return nil, err
	}
	s.only, l.Logger = l, nil
	return l, nil
}

// Session returns the session that the lock belongs to. That of a lock that [New] returned is its
// own: it makes no other locks.
func (l *Lock) Session() *Session { return l.session }

// record returns what a place in line says of us. It is called by whoever has the turn.
func (l *Lock) record(command string) string {
	if l.stamp == nil || command != l.stamped {
		r := wire.Self(l.id)
		if command != "" {
			r.Command = filepath.Base(command)
		}
		l.stamp, l.stamped = r.Stamp(), command
	}
	return l.stamp()
}

// Key returns the lock's key.
func (l *Lock) Key() string { return l.key }

// ID returns the holder's id.
func (l *Lock) ID() string { return l.id }

func (l *Lock) current() *holding.Holding {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// Prepare grants the lease that the next Lock or TryLock needs, so that these need one round trip
// only. It fails with ErrNoAnswer if etcd does not answer within ConnectTimeout. Without need it
// does nothing.
func (l *Lock) Prepare(ctx context.Context) error {
	s, err := l.settings()
	if err != nil {
		return err
	}
	if err := l.take(ctx, nil); err != nil {
		return err
	}
	defer l.give()
	switch c := l.current(); {
	case c == nil || c.IsExpired():
		_, err = l.prepare(ctx, s)
		return err
	case c.LostError() != nil:
		return c.MustBeUnlocked()
	}
	return nil
}

// prepare returns the lease to stand in line with: the session's, or one of its own that has at
// least half of its life before it.
func (l *Lock) prepare(ctx context.Context, s settings) (*lease.Lease, error) {
	if l.session.inner.IsShared {
		return l.session.inner.Prepare(ctx, s.timing, s.log)
	}
	if err := l.session.inner.Err(); err != nil {
		return nil, err
	}
	if ls := l.atHand; ls != nil && ls.ValidUntil().Until() > ls.TTL()/2 && ls.TTL() >= s.TTL {
		return ls, nil
	}
	l.atHand = nil // without keys, it runs out by itself
	ls, err := l.session.inner.Grant(ctx, s.timing)
	if l.atHand = ls; err == nil {
		l.session.inner.Debts.PayNow(ctx)
	}
	return ls, err
}

// nextPlace names the next place in line. Etcd keeps a name for every key that ever was, until it
// compacts, and goes through all below K/ when somebody joins: so the next place takes the same
// name, unless a late write could hit it.
func (l *Lock) nextPlace(ls *lease.Lease, command string) wire.Place {
	if l.under != ls {
		n := ls.Places.Add(1)
		l.under = ls
		if l.place = wire.LinkedPlace(l.key, ls.ID(), n); l.unlinked {
			l.place = wire.UnlinkedPlace(l.key, ls.ID(), n)
		}
	}
	return wire.Place{
		Lock:   l.key,
		Key:    l.place,
		Lease:  ls.ID(),
		ID:     l.id,
		Record: l.record(command),
		Linked: !l.unlinked,
	}
}

// Lock waits for its turn, first come first served, and returns what it holds then, until Unlock.
//
// It blocks until the lock is held or ctx is done, which bounds the wait and not the work. When ctx
// is done first, the place in line is given up. It fails with ErrNoAnswer if etcd does not answer
// within ConnectTimeout at the start; an outage later is waited out, and if it cost the place in
// line, another one is taken at its end. It fails with ErrClosed when Close is called meanwhile.
//
// A call while the lock is held renews it at once, see [Held.Refresh], and returns the same Held.
// One while it is lost, but was not unlocked and is still valid, fails with the *LostError: the
// place in line keeps others out until the work has stopped.
func (l *Lock) Lock(ctx context.Context) (*Held, error) { return l.lock(ctx, call{}) }

// TryLock is Lock that does not wait: it fails with a [*BusyError] when somebody else holds the
// lock or stands in line, and with ErrNoAnswer when etcd has not told within ConnectTimeout. While
// another call of this Lock waits, it fails with ErrBusy after ConnectTimeout.
func (l *Lock) TryLock(ctx context.Context) (*Held, error) { return l.lock(ctx, call{try: true}) }

// A call says what is asked of lock.
type call struct {
	try bool // not to wait
	own bool // not to join in what another call holds
}

func (l *Lock) lock(ctx context.Context, how call) (*Held, error) {
	s, err := l.settings()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // nothing is sent for it
	}
	for {
		if c := l.current(); c != nil && c.LostError() == nil {
			if how.own {
				return nil, fmt.Errorf("lock %q is held already: Run takes it, and gives it back, itself", l.key)
			}
			if unlocked, err := c.Again(ctx); err != nil && !unlocked {
				return nil, err
			} else if !unlocked {
				return c.Held.(*Held), nil
			}
		}
		if err := l.takeFor(ctx, how, s); err != nil {
			return nil, err
		}
		if c := l.current(); c == nil || c.LostError() != nil {
			defer l.give()
			break
		}
		l.give() // to renew must not hold Unlock up
	}
	ctx, unanswered, stop := l.interruptible(ctx)
	defer stop()
	c := l.current()
	if c != nil && !c.IsExpired() { // the work that stops would run beside that of the next one
		return nil, c.MustBeUnlocked()
	}
	for c == nil || c.LostError() != nil { // also one that is lost before it is handed out
		if c != nil {
			l.drop(ctx, c)
		}
		if c, err = l.acquire(ctx, s, how.try, unanswered); err != nil {
			return nil, err
		}
		l.mu.Lock()
		l.at, l.atHand = c, nil
		l.mu.Unlock()
		// From here on Close of the session finds it; what came before has ended the lease.
		if errors.Is(c.Lease.Err(), ErrClosed) {
			c.Dismiss()
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, ErrClosed)
		}
	}
	l.alone = c.Created() == c.Token()
	return c.Held.(*Held), nil
}

// interruptible returns a context for a wait that ends with Close of the lock, its session or the
// client, and when the timer rings, which is not set yet: then etcd has not answered. It is called
// by whoever has the turn.
func (l *Lock) interruptible(ctx context.Context) (_ context.Context, unanswered *time.Timer, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	l.waits = cancel
	if l.closing > 0 {
		cancel(ErrClosed)
	}
	l.mu.Unlock()
	unanswered = time.AfterFunc(math.MaxInt64, func() { cancel(ErrNoAnswer) })
	ignoreClient := context.AfterFunc(l.session.inner.Client.Ctx(), func() { cancel(errClientClosed) })
	ignoreSession := context.AfterFunc(l.session.inner.Open, func() { cancel(ErrClosed) })
	return ctx, unanswered, func() {
		unanswered.Stop()
		ignoreClient()
		ignoreSession()
		l.mu.Lock()
		l.waits = nil
		l.mu.Unlock()
		cancel(nil)
	}
}

// interrupt ends the calls of Lock that wait, also those that wait for their turn to, until resume
// is called.
func (l *Lock) interrupt() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing++
	if l.waits != nil {
		l.waits(ErrClosed)
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.closing--
	}
}

// Run waits for the lock, works, and unlocks, also if the work panics. The work gets a context that
// is done when ctx is, or when the lock is about to be lost, and must end then: Run does not return
// before it has. Its error is that of the work, joined with a *LostError if the lock was lost, with
// ErrNotHeld if somebody else has unlocked or closed the Lock meanwhile, or with what Unlock says
// otherwise.
//
// Goroutines that call Run on one Lock take turns; within the work of another Run on the same Lock
// it would wait for itself. It fails if the lock is held already by Lock or TryLock.
func (l *Lock) Run(ctx context.Context, work func(ctx context.Context, held *Held) error) (err error) {
	if err := l.check(); err != nil {
		return err
	}
	select {
	case l.runs <- struct{}{}:
		defer func() { <-l.runs }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	held, err := l.lock(ctx, call{own: true})
	if err != nil {
		return err
	}
	defer func() {
		var lost *LostError
		asked := held.h.Asked.Load()
		switch unlocking := held.Unlock(ctx); {
		case unlocking == ErrNotHeld && asked: // by the work
		case errors.As(unlocking, &lost) && errors.As(err, &lost):
		case err == nil:
			err = unlocking
		default:
			err = errors.Join(err, unlocking)
		}
	}()
	return work(held.Context(ctx), held)
}

// takeFor is take for a call of lock: who only tries does not wait for another call's turn for
// long.
func (l *Lock) takeFor(ctx context.Context, how call, s settings) error {
	if how.try {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, s.Connect, fmt.Errorf("lock %q: another call waits for it: %w", l.key, ErrBusy))
		defer cancel()
	}
	return l.take(ctx, nil)
}

// take waits until this method may change the lock's state, until ctx is done, or until over is
// closed.
func (l *Lock) take(ctx context.Context, over <-chan struct{}) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-over:
		return ErrNotHeld
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *Lock) give() { <-l.turn }
