package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/locker"
)

// A Set is a contender for several locks of a session at once: it holds all of them, or none. It
// takes them in the order of their keys, as bytes, whatever order they were named in. So no two
// sets wait for each other, nor a set and whoever takes single locks in that order.
//
// If all are free, one transaction takes them; slots are taken one after another. Otherwise it
// waits for one after another, and keeps those that it has from others meanwhile: waits add up.
//
// Its methods may be called from any goroutine. The exported fields are read when Lock or TryLock
// is called, and must not be written while one of them runs.
type Set struct {
	// Mode is that of [Lock], for all locks.
	Mode Mode

	// Command, Logger, OnWait and OnRenew are those of [Lock]. OnWait is called for each place in
	// line that is not the first, OnRenew once for all locks under one lease, also while the set
	// has some of them and waits for the next.
	Command         string
	Logger          *slog.Logger
	OnWait, OnRenew func()

	session *Session
	keys    []string // sorted
	inner   *locker.Set
}

// NewSet returns a set of locks of the session that is not held. Keys and id are those of [New]; no
// key may be there twice. Whose session is that of a lock that [New] returned is refused.
func (s *Session) NewSet(keys []string, id string) (*Set, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.only != nil {
		return nil, s.notShared()
	}
	if len(keys) == 0 {
		return nil, errors.New("the set has no keys")
	}
	sorted := slices.Sorted(slices.Values(keys))
	for i, key := range sorted {
		if i > 0 && key == sorted[i-1] {
			return nil, fmt.Errorf("the set has the key %q twice", key)
		}
		if err := locker.CheckNames(key, id); err != nil {
			return nil, err
		}
	}
	return &Set{Logger: s.Logger, session: s, keys: sorted, inner: locker.NewSet(s.inner, sorted, id, public)}, nil
}

// Keys returns the keys in the order in which they are taken.
func (s *Set) Keys() []string { return slices.Clone(s.keys) }

// Lock waits for all locks. It blocks and fails as [Lock.Lock] does; an error names the key that it
// is about. If a lock that it has is lost while it waits for the next, it begins again.
func (s *Set) Lock(ctx context.Context) (*HeldSet, error) { return s.lock(ctx, false) }

// TryLock is Lock that does not wait: it fails with the [*BusyError] of the first key that somebody
// else holds or stands in line for.
func (s *Set) TryLock(ctx context.Context) (*HeldSet, error) { return s.lock(ctx, true) }

func (s *Set) lock(ctx context.Context, try bool) (*HeldSet, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	with, err := locker.Settings{Timing: s.session.timing(), Command: s.Command, Mode: s.Mode, Log: s.Logger, OnWait: s.OnWait, OnRenew: s.OnRenew}.Complete()
	if err != nil {
		return nil, err
	}
	t, err := s.inner.Lock(ctx, try, with)
	if err != nil {
		return nil, err
	}
	return &HeldSet{t}, nil
}

// Unlock gives all locks back with one request. It fails as [Lock.Unlock] does, with what each lock
// has to say.
func (s *Set) Unlock(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	if t := s.inner.Current(); t != nil {
		return s.inner.End(ctx, t)
	}
	return ErrNotHeld
}

// Close is [Lock.Close] for a set. The lease stays with the session.
func (s *Set) Close(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.inner.Close(ctx)
}

// A HeldSet is the locks of a set as they are held: from the Lock or TryLock that got them until
// Unlock. The zero HeldSet, and nil, hold nothing. Its methods may be called from any goroutine.
type HeldSet struct{ taken *locker.Taken }

// nothing is what a HeldSet that holds nothing has in place of locks.
var nothing = []*Held{nil}

// all returns the locks.
func (h *HeldSet) all() (all []*Held) {
	if h == nil || h.taken == nil {
		return nothing
	}
	for _, one := range h.taken.All {
		all = append(all, &Held{one})
	}
	return all
}

// Context is [Held.Context] for a set: it is done as soon as one of the locks is about to be lost.
// Its context.Cause is then the [*LostError] of that lock.
func (h *HeldSet) Context(parent context.Context) context.Context {
	for _, one := range h.all() {
		parent = one.Context(parent)
	}
	return parent
}

// Token returns the fencing token of one of the locks. Those that were taken together are equal,
// but for shared ones of which etcd was asked twice.
func (h *HeldSet) Token(key string) int64 { return h.of(key).Token() }

// Slot is [Held.Slot] for one of the locks.
func (h *HeldSet) Slot(key string) int { return h.of(key).Slot() }

// of returns one of the locks, nil if it is not held.
func (h *HeldSet) of(key string) *Held {
	for _, one := range h.all() {
		if c := one.holding(); c != nil && c.Place.Lock == key {
			return one
		}
	}
	return nil
}

// Lease returns the lease that all locks hang on, see [Held.Lease]; 0 after Unlock, or if they hang
// on two: the session can have taken another one while the set waited.
func (h *HeldSet) Lease() clientv3.LeaseID {
	all := h.all()
	if slices.ContainsFunc(all, func(one *Held) bool { return one.Lease() != all[0].Lease() }) {
		return 0
	}
	return all[0].Lease()
}

// IsHolder returns the comparisons of [Held.IsHolder] for all locks.
func (h *HeldSet) IsHolder() (all []clientv3.Cmp) {
	for _, one := range h.all() {
		all = append(all, one.IsHolder())
	}
	return all
}

// Remaining is [Held.Remaining] for the lock that has the least.
func (h *HeldSet) Remaining() (least time.Duration) {
	for i, one := range h.all() {
		if remains := one.Remaining(); i == 0 || remains < least {
			least = remains
		}
	}
	return least
}

// Expired is [Held.Expired] for a set: the channel is closed as soon as one of the locks may belong
// to somebody else.
func (h *HeldSet) Expired() <-chan struct{} {
	if h == nil || h.taken == nil {
		return holding.Closed
	}
	return h.taken.Expiry
}

// Refresh is [Held.Refresh] for a set.
func (h *HeldSet) Refresh(ctx context.Context) error {
	if h == nil || h.taken == nil {
		return ErrNotHeld
	}
	return h.taken.Refresh(ctx)
}

// Unlock is [Set.Unlock] for this holding: if it was unlocked before, it fails with ErrNotHeld, and
// touches no later one.
func (h *HeldSet) Unlock(ctx context.Context) error {
	if h == nil || h.taken == nil {
		return ErrNotHeld
	}
	return h.taken.Unlock(ctx)
}

func (s *Set) check() error {
	if s == nil || s.session == nil {
		return errors.New("the Set was not made by NewSet")
	}
	return s.session.check()
}
