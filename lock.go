package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/place"
)

// A Lock is one contender for a lock on etcd. It keeps other contenders out, in this process and in all
// others, and not the goroutines that share it: two of them that call Lock on one Lock both get it.
//
// Its methods may be called from any goroutine. The exported fields are read when Lock, TryLock or Prepare
// is called, and must not be written while one of them runs.
type Lock struct {
	// TTL is how long the lock outlives a holder that is gone: whole seconds, from 1 s to 24 h. Etcd may
	// grant more than was asked for (2 s at least, as it is usually set up).
	TTL time.Duration

	// RefreshInterval is the time between renewals. 0 means TTL/2, or less where Grace leaves less room.
	RefreshInterval time.Duration

	// Grace is how long before the end of validity the context that Lock returns is done, so that the work
	// has this long to stop. 0 means TTL/4, at most 5 s.
	Grace time.Duration

	// ConnectTimeout bounds the wait for etcd's first answer. 0 means 5 s.
	ConnectTimeout time.Duration

	// Command names the work in the record that others see in the line. Empty means the program's name. Only
	// the last element of a path is used.
	Command string

	// Logger gets debug and warning messages. Nil means none. It must not block: the lock is not
	// renewed meanwhile.
	Logger *slog.Logger

	// OnWait, if set, is called each time that Lock has taken a place behind somebody else. It must not block.
	OnWait func()

	// OnRenew, if set, is called each time that the validity of a lock that is held has been extended. It must not block.
	OnRenew func()

	// Margin, if set, returns how much sooner than usual validity is to end, because the work takes
	// that long to end by force: 0 or more. At most an eighth of the TTL counts, and no more than
	// leaves room for the next renewal before Grace. It is called at each renewal, and counts from
	// that renewal on: the end of validity never moves back. It must not block. The locks of a
	// Session do without.
	Margin func() time.Duration

	client  *clientv3.Client
	session *Session // nil with a lease of its own
	key, id string

	turn chan struct{} // holds one token for the method that may change the lock's state in etcd

	mu sync.Mutex
	at *contender // holds the lock, or lost it and was not unlocked yet

	// Guarded by turn:
	atHand   *lease // of its own, without a place in line
	alone    bool   // the lock was acquired at once the last time
	unlinked bool   // the tail may not be written
	place    string // the name of the last place in line
	under    *lease // whose name it bears; nil if it must not be used again

	stamp   func() string // makes our record in the line; guarded by turn
	stamped string        // the command that it names
	token   int64         // of the last holding
}

// New returns a lock that is not held. Key is any 1 to 4096 bytes, taken as given: "/a" and "a" are two locks.
// Id is a label for people, at most 256 bytes of UTF-8; two contenders with one id are still two. Nothing is
// sent to etcd.
func New(client *clientv3.Client, key, id string, ttl time.Duration) (*Lock, error) {
	if client == nil {
		return nil, errors.New("the etcd client is nil")
	}
	if err := errors.Join(checkNames(key, id), checkTTL(ttl)); err != nil {
		return nil, err
	}
	return &Lock{
		TTL:    ttl,
		client: client,
		key:    key,
		id:     id,
		turn:   make(chan struct{}, 1),
	}, nil
}

// record returns what a place in line says of us. It is called by whoever has the turn.
func (l *Lock) record(command string) string {
	if l.stamp == nil || command != l.stamped {
		r := place.Self(l.id)
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

// Token returns the fencing token: the ModRevision that the lock's key got when this Lock was last acquired, 0 if
// it never was. Tokens grow from holder to holder. It says nothing of whether the lock is still held.
func (l *Lock) Token() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.token
}

// Lease returns the lease that the lock hangs on, 0 if it is not held. A key that is bound to it goes when the lock does.
func (l *Lock) Lease() clientv3.LeaseID {
	if c := l.current(); c != nil {
		return c.lease.id
	}
	return 0
}

// IsHolder returns the comparison for an etcd transaction that must only be applied while this holding lasts.
// After the lock has gone to somebody else such a transaction is refused by etcd, however late it arrives.
func (l *Lock) IsHolder() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(l.key), "=", l.Token())
}

// Remaining returns for how long, from before the call, nobody else can hold the lock if no further renewal
// succeeds; 0 or less when it is not held, or may be somebody else's.
func (l *Lock) Remaining() time.Duration {
	now := boottime.Now()
	c := l.current()
	if c == nil || c.isExpired() {
		return 0
	}
	return c.lease.validUntil().Sub(now)
}

// Expired returns a channel that is closed as soon as the lock may belong to somebody else: when validity has
// ended without a renewal, when it was taken away by force, or after Unlock. The context that Lock returns is
// done earlier wherever that is possible; what still works when Expired is closed must be ended, not asked to
// end. The channel belongs to the present holding; it is closed if there is none.
func (l *Lock) Expired() <-chan struct{} {
	if c := l.current(); c != nil {
		return c.expired
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

func (l *Lock) current() *contender {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

// Prepare grants the lease that the next Lock or TryLock needs, so that these need one round trip only. It fails
// with ErrNoAnswer if etcd does not answer within ConnectTimeout. Without need it does nothing.
func (l *Lock) Prepare(ctx context.Context) error {
	s, err := l.settings()
	if err != nil {
		return err
	}
	if err := l.take(ctx, nil); err != nil {
		return err
	}
	defer l.give()
	if l.current() != nil {
		return nil
	}
	_, err = l.prepare(ctx, s)
	return err
}

// prepare returns the lease to stand in line with: the session's, or one of its own that has at least half of its life before it.
func (l *Lock) prepare(ctx context.Context, s settings) (*lease, error) {
	if l.session != nil {
		return l.session.prepare(ctx, s)
	}
	if ls := l.atHand; ls != nil && ls.validUntil().Until() > ls.ttl/2 && ls.ttl >= s.ttl {
		return ls, nil
	}
	l.atHand = nil // without keys, it runs out by itself
	ls, err := grantLease(ctx, l.client, s.timing)
	l.atHand = ls
	return ls, err
}

// nextPlace names the next place in line. Etcd keeps a name for every key that ever was, until it compacts, and goes through all below K/ when
// somebody joins: so the next place takes the same name, unless a late write could hit it.
func (l *Lock) nextPlace(ls *lease) string {
	if l.under != ls {
		n := ls.places.Add(1)
		l.under = ls
		if l.place = place.Key(l.key, ls.id, n); l.unlinked {
			l.place = place.Unlinked(l.key, ls.id, n)
		}
	}
	return l.place
}

// Lock waits for its turn, first come first served, and returns a context that is done when the lock is about to
// be lost: Grace before validity ends, or as soon as it is known that the lock is lost otherwise. Its
// context.Cause is then a *LostError. It is also done when ctx is; the lock is held until Unlock all the same.
//
// Lock blocks until the lock is held or ctx is done. When ctx is done first, the place in line is given up. It
// fails with ErrNoAnswer if etcd does not answer within ConnectTimeout at the start; an outage later is waited
// out, and if it cost the place in line, another one is taken at its end.
//
// A call while the lock is held renews it at once, with the settings of the first call.
func (l *Lock) Lock(ctx context.Context) (context.Context, error) { return l.lock(ctx, false) }

// TryLock is Lock that does not wait: it fails with ErrBusy when somebody else holds the lock or stands in line.
func (l *Lock) TryLock(ctx context.Context) (context.Context, error) { return l.lock(ctx, true) }

func (l *Lock) lock(ctx context.Context, try bool) (context.Context, error) {
	s, err := l.settings()
	if err != nil {
		return nil, err
	}
	if err := l.take(ctx, nil); err != nil {
		return nil, err
	}
	defer l.give()

	if c := l.current(); c != nil {
		if !c.isLost() {
			return c.again(ctx)
		}
		l.drop(ctx, c)
	}
	c, err := l.acquire(ctx, s, try)
	if err != nil {
		return nil, err
	}
	if errors.Is(c.lease.gone(), ErrSessionClosed) {
		c.stop()
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, ErrSessionClosed)
	}
	l.mu.Lock()
	l.at, l.token, l.atHand = c, c.token.Load(), nil
	l.mu.Unlock()
	l.alone = c.create() == c.token.Load()
	return c.hold(ctx), nil
}

// again renews a lock that is held.
func (c *contender) again(ctx context.Context) (context.Context, error) {
	rpc, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-c.expired:
			cancel(ErrNotHeld)
		case <-rpc.Done():
		}
	}()
	glances, ops := c.lease.glance([]*contender{c})
	resp, err := c.lease.renew(rpc, ops...)
	if err != nil {
		c.lease.failed(rpc, err)
	} else {
		judgeAll(glances, resp)
		c.renewed()
	}
	if lost := c.lostError(); lost != nil {
		return nil, lost
	}
	if err != nil {
		return nil, fmt.Errorf("renewing lock %q: %w", c.key, err)
	}
	return c.hold(ctx), nil
}

// take waits until this method may change the lock's state, until ctx is done, or until over is closed.
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
