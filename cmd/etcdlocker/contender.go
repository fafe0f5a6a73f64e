package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// A contender stands in line for what is to be locked: for one lock, or for several.
type contender interface {
	// session returns the session of its own that it has.
	session() *etcdlock.Session
	// acquire waits for all locks, or only tries to get them.
	acquire(ctx context.Context, try bool) (held, error)
	// close gives back what is held, and leaves nothing in etcd.
	close(ctx context.Context) error
}

// held is what a contender holds.
type held interface {
	Context(parent context.Context) context.Context
	Token(key string) int64
	Slot(key string) int
	Lease() clientv3.LeaseID // 0: there are two
	Remaining() time.Duration
	Expired() <-chan struct{}
	Refresh(ctx context.Context) error
}

// newContender returns one for the keys.
func (h *holder) newContender() (contender, error) {
	command, log := "", h.voice.logger(h.verbose)
	if len(h.command) > 0 {
		command = h.command[0]
	}
	if len(h.keys) == 1 {
		lock, err := etcdlock.New(h.client, h.keys[0], h.id, h.ttl)
		if err != nil {
			return nil, err
		}
		lock.Command, lock.Mode, lock.Logger, lock.OnWait, lock.OnRenew = command, h.mode, log, h.onWait, h.onRenew
		return single{lock}, nil
	}
	session, err := etcdlock.NewSession(h.client, h.ttl)
	if err != nil {
		return nil, err
	}
	session.Logger = log
	set, err := session.NewSet(h.keys, h.id)
	if err != nil {
		return nil, err
	}
	set.Command, set.Mode, set.OnWait, set.OnRenew = command, h.mode, h.onWait, h.onRenew
	return several{set, session}, nil
}

// A single lock.
type single struct{ lock *etcdlock.Lock }

func (s single) session() *etcdlock.Session { return s.lock.Session() }

func (s single) acquire(ctx context.Context, try bool) (held, error) {
	return acquire(ctx, try, s.lock.Lock, s.lock.TryLock, func(h *etcdlock.Held) held { return heldSingle{h} })
}

func (s single) close(ctx context.Context) error { return s.lock.Close(ctx) }

// heldSingle has the token and the slot of its only key.
type heldSingle struct{ *etcdlock.Held }

func (h heldSingle) Token(string) int64 { return h.Held.Token() }
func (h heldSingle) Slot(string) int    { return h.Held.Slot() }

// Several locks, the only ones of a session.
type several struct {
	set *etcdlock.Set
	in  *etcdlock.Session
}

func (s several) session() *etcdlock.Session { return s.in }

func (s several) acquire(ctx context.Context, try bool) (held, error) {
	return acquire(ctx, try, s.set.Lock, s.set.TryLock, func(h *etcdlock.HeldSet) held { return h })
}

// close gives the locks back, which tells whether they were held until then, and ends the session,
// which takes along what could not be given back.
func (s several) close(ctx context.Context) error {
	until, _ := ctx.Deadline()
	half, cancel := context.WithTimeout(ctx, time.Until(until)/2)
	defer cancel()
	err := s.set.Close(half)
	ended := s.in.Close(ctx)
	if errors.As(err, new(*etcdlock.LostError)) {
		return errors.Join(err, ended)
	}
	return ended
}

// acquire calls one of two methods of a lock or of a set, and returns what it holds.
func acquire[H any](ctx context.Context, try bool, lock, tryLock func(context.Context) (H, error), as func(H) held) (held, error) {
	if try {
		lock = tryLock
	}
	h, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	return as(h), nil
}
