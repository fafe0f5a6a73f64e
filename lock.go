package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/locker"
)

// A Lock is one contender for a lock on etcd. It keeps other contenders out, in this process and in
// all others. It does not keep out the goroutines that share it: if two goroutines call Lock on the
// same Lock, both succeed. Goroutines that call Run take turns.
//
// Its methods may be called from any goroutine. The exported fields are read when Lock, TryLock,
// Run or Prepare is called, and must not be written while one of them runs. How long things take is
// set in its [Session].
type Lock struct {
	// Command names the work in the record that others see in the line. Empty means the program's
	// name. Only the last element of a path is used. At most 4096 bytes.
	Command string

	// Mode says how the lock is to be held. What is held already stays as it is: Lock refuses to
	// return it for another mode.
	Mode Mode

	// Logger gets debug and warning messages, from a goroutine of its own. Nil means none.
	Logger *slog.Logger

	// OnWait, if set, is called each time that Lock has taken a place behind somebody else, and
	// OnRenew each time that the validity of a lock that is held has been extended. A goroutine of
	// their own calls them, one after another, some time later. They may call the Lock's methods.
	// While they block nothing else waits. Of the calls and messages that are due meanwhile the
	// newest 256 are kept.
	OnWait, OnRenew func()

	session *Session
	key, id string
	inner   *locker.Locker

	runs chan struct{} // holds one token for Run
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

// Key returns the lock's key.
func (l *Lock) Key() string { return l.key }

// ID returns the holder's id.
func (l *Lock) ID() string { return l.id }

// Prepare grants the lease that the next Lock or TryLock needs, so that these need one round trip
// only. It does nothing if the Lock has a lease that it can use. It fails with ErrNoAnswer if etcd
// does not answer within ConnectTimeout.
func (l *Lock) Prepare(ctx context.Context) error {
	s, err := l.settings()
	if err != nil {
		return err
	}
	return l.inner.Prepare(ctx, s)
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
func (l *Lock) Lock(ctx context.Context) (*Held, error) { return l.lock(ctx, locker.Call{}) }

// TryLock is Lock that does not wait: it fails with a [*BusyError] when somebody else holds the
// lock or stands in line, and with ErrNoAnswer when etcd has not told within ConnectTimeout. While
// another call of this Lock waits, it fails with ErrBusy after ConnectTimeout.
func (l *Lock) TryLock(ctx context.Context) (*Held, error) {
	return l.lock(ctx, locker.Call{Try: true})
}

func (l *Lock) lock(ctx context.Context, how locker.Call) (*Held, error) {
	s, err := l.settings()
	if err != nil {
		return nil, err
	}
	h, err := l.inner.Lock(ctx, how, s)
	if err != nil {
		return nil, err
	}
	return h.Held.(*Held), nil
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
	held, err := l.lock(ctx, locker.Call{Own: true})
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

// Unlock releases the lock. Once is enough, however often Lock was called. The contexts of what was
// held are done before anybody else can get the lock. It goes to who is next in line at once, if
// that is known. The next Lock uses the same lease, which has no keys until then, unless it has run
// out.
//
// It fails with ErrNotHeld, and touches nobody's lock, if the lock is not held, also while Lock
// still waits: what ends that is its context. If the lock was lost, Unlock removes what is left of
// it and returns the *LostError. It returns at the latest when validity ends, or when ctx is done,
// and then with ErrUnconfirmed. A ctx that is done, or is about to be, is given a second.
func (l *Lock) Unlock(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	if h := l.inner.Current(); h != nil {
		return l.inner.End(ctx, h)
	}
	return ErrNotHeld
}

// Close releases the lock if it is held, and leaves nothing in etcd, not even a lease (that of a
// session stays with it). A Lock call that waits fails with ErrClosed. Close returns the errors of
// Unlock; closing a Lock that is not held succeeds. The Lock can be used again.
func (l *Lock) Close(ctx context.Context) error {
	if err := l.check(); err != nil {
		return err
	}
	return l.inner.Close(ctx)
}
