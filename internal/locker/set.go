package locker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/session"
)

// A Set is a contender for several locks at once, under one lease. It takes them in the order of
// their keys, as all others do: so no two wait for each other.
type Set struct {
	calls
	lockers []*Locker // in that order; nobody else calls them

	at *Taken // what is held, or was lost and not unlocked yet; guarded by mu

	alone bool // the locks were acquired at once the last time; guarded by turn
}

// Taken is what a Set holds.
type Taken struct {
	set    *Set
	All    []*holding.Holding // in the order of the keys
	Expiry <-chan struct{}    // closed when another contender may have one of the locks
}

// NewSet returns a set that holds nothing. Keys are sorted.
func NewSet(s *session.Session, keys []string, id string, public *holding.Public) *Set {
	set := &Set{calls: newCalls(s, keys[0]), alone: true}
	for _, key := range keys {
		set.lockers = append(set.lockers, New(s, key, id, public))
	}
	return set
}

// Current returns what is held, or was lost and not unlocked yet, or nil.
func (s *Set) Current() *Taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		return nil
	}
	for i, l := range s.lockers {
		if l.Current() != s.at.All[i] {
			return nil // Close of the session has given it back
		}
	}
	return s.at
}

// Lock waits for all locks, and returns what it holds then. What is held already is renewed.
func (s *Set) Lock(ctx context.Context, try bool, with Settings) (*Taken, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // nothing is sent for it
	}
	for {
		if t := s.Current(); t != nil && firstLost(t.All) == nil {
			if t.All[0].Place.Mode != with.Mode {
				return nil, otherMode(s.name)
			}
			if unlocked, err := t.All[0].Again(ctx, t.Refresh); !unlocked {
				return t, err
			}
		}
		if err := s.takeFor(ctx, Call{Try: try}, with); err != nil {
			return nil, err
		}
		t := s.Current()
		if t == nil || firstLost(t.All) != nil {
			defer s.give()
			return s.lock(ctx, t, try, with)
		}
		s.give() // to renew must not hold Unlock up
	}
}

// lock is Lock of whoever has the turn. Lost is what was not unlocked, or nil.
func (s *Set) lock(ctx context.Context, lost *Taken, try bool, with Settings) (*Taken, error) {
	ctx, unanswered, stop := s.interruptible(ctx)
	defer stop()
	if lost != nil {
		// The work that stops would run beside that of the next one.
		if h := firstLost(lost.All); !h.IsExpired() {
			return nil, h.MustBeUnlocked()
		}
		s.forget()
		s.clear(ctx, lost.All)
	}
	all, err := s.acquire(ctx, try, with, unanswered)
	if err != nil {
		return nil, err
	}
	t := &Taken{set: s, All: all, Expiry: holding.FirstExpiry(all)}
	s.mu.Lock()
	s.at = t
	s.mu.Unlock()
	return t, nil
}

// acquire takes all locks, with one transaction if nobody is there.
func (s *Set) acquire(ctx context.Context, try bool, with Settings, unanswered *time.Timer) ([]*holding.Holding, error) {
	if (try || s.alone) && with.Mode.Slots() == 0 {
		all, err := s.together(ctx, with, unanswered)
		s.alone = err == nil
		switch {
		case err == nil && firstLost(all) != nil: // before it is handed out
			s.clear(ctx, all)
		case err == nil:
			return all, nil
		case ctx.Err() != nil, errors.Is(err, holding.ErrNoAnswer):
			return nil, err
		case try && errors.Is(err, holding.ErrBusy):
			return nil, err
		}
	}
	all, err := s.oneByOne(ctx, try, with)
	if err == nil {
		s.alone = !slices.ContainsFunc(s.lockers, func(l *Locker) bool { return !l.alone })
	}
	return all, err
}

// together takes all locks with one transaction, or none. Unanswered rings if etcd does not answer.
func (s *Set) together(ctx context.Context, with Settings, unanswered *time.Timer) (all []*holding.Holding, err error) {
	for _, l := range s.lockers {
		if err := l.awaitAnswer(ctx, with); err != nil {
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
	}
	ls, err := s.session.Prepare(ctx, s.name, with.Timing, with.Log)
	if err != nil {
		return nil, err
	}
	var g queue.Group
	for i, l := range s.lockers {
		h := l.stand(ls, s.of(with, i), true)
		all, g = append(all, h), append(g, h.Contender)
	}
	unanswered.Reset(with.Connect)
	errs := g.Acquire(ctx)
	unanswered.Stop()
	failed := slices.IndexFunc(errs, queue.IsBusy)
	if failed < 0 {
		failed = slices.IndexFunc(errs, func(err error) bool { return err != nil })
	}
	for i, l := range s.lockers {
		h := all[i]
		l.remember(h)
		switch {
		case failed < 0:
			if holds := l.hold(h); err == nil {
				err = holds
			}
		case i == failed && queue.IsBusy(errs[i]):
			err = l.busy(ctx, h, wroteNothing(h))
		default:
			l.withdraw(ctx, h, wroteNothing(h))
			if i == failed {
				err = l.failed(causeOf(ctx, errs[i]), with)
			}
		}
	}
	return all, err
}

// of returns the settings of the i-th lock: a renewal is one of all under one lease.
func (s *Set) of(with Settings, i int) Settings {
	if renewed := with.OnRenew; i > 0 && renewed != nil {
		with.OnRenew = func() {
			if t := s.Current(); t != nil && t.All[i].Lease != t.All[i-1].Lease {
				renewed()
			}
		}
	}
	return with
}

// oneByOne waits for one lock after another. Nothing runs under those that it has while it waits
// for the next: if one of them is lost, it begins again.
func (s *Set) oneByOne(ctx context.Context, try bool, with Settings) ([]*holding.Holding, error) {
	var last *holding.Holding // that was lost
	for {
		all, err := s.inOrder(ctx, try, with)
		lost := firstLost(all)
		switch {
		case err == nil && lost == nil:
			return all, nil
		case err == nil:
			err = lost.LostError()
		}
		s.clear(ctx, all)
		if s.session.Err() != nil || errors.Is(context.Cause(ctx), holding.ErrClosed) {
			return nil, fmt.Errorf("acquiring lock %q: %w", s.name, holding.ErrClosed)
		}
		if lost != nil {
			last = lost
		}
		outage := last != nil && errors.Is(err, holding.ErrNoAnswer) // in which it was lost
		if try || ctx.Err() != nil || lost == nil && !outage {
			return nil, err
		}
		last.Say(slog.LevelWarn, "a lock of a set is lost before it has all, beginning again", "cause", whyLost(last, err))
	}
}

// inOrder waits for one lock after another. It returns those that it has also with an error.
func (s *Set) inOrder(ctx context.Context, try bool, with Settings) (all []*holding.Holding, err error) {
	for i, l := range s.lockers {
		if i > 0 {
			with.under = record.AddUnder(with.under, all[i-1].Place.Lock, all[i-1].Token())
		}
		h, err := l.Lock(ctx, Call{Try: try, Own: true}, s.of(with, i))
		if err != nil {
			return all, err
		}
		all, ctx = append(all, h), h.Context(ctx)
	}
	return all, nil
}

// End gives back what a set holds, unless that was done.
func (s *Set) End(ctx context.Context, t *Taken) error {
	ctx, done := debts.Allow(ctx)
	defer done()
	if err := s.takeToEnd(ctx, t.All[0]); err != nil {
		return err
	}
	defer s.give()
	if s.Current() != t {
		return holding.ErrNotHeld
	}
	return s.finish(ctx, t)
}

// Close gives back what is held. Calls of Lock that wait fail.
func (s *Set) Close(ctx context.Context) error {
	defer s.interrupt()()
	ctx, done := debts.Allow(ctx)
	defer done()
	if err := s.take(ctx, nil); err != nil {
		return holding.Unconfirmed(err)
	}
	defer s.give()
	if t := s.Current(); t != nil {
		return s.finish(ctx, t)
	}
	return nil
}

// finish puts an end to what is held. It is called by whoever has the turn.
func (s *Set) finish(ctx context.Context, t *Taken) error {
	s.forget()
	return s.giveBack(ctx, t.All)
}

func (s *Set) forget() {
	s.mu.Lock()
	s.at = nil
	s.mu.Unlock()
}

// clear gives locks back for a call that has not got all, also when ctx is done. What cannot be
// given back in time the session gives back later.
func (s *Set) clear(ctx context.Context, all []*holding.Holding) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), debts.Limit)
	defer cancel()
	s.giveBack(ctx, all)
}

// giveBack gives locks back, those of the first lockers, or removes what is left of them.
func (s *Set) giveBack(ctx context.Context, all []*holding.Holding) error {
	errs := make([]error, len(all))
	var held []*holding.Holding
	for i, h := range all {
		if errs[i] = h.LostError(); errs[i] == nil {
			held = append(held, h)
		}
	}
	given := holding.GiveBackAll(ctx, held)
	var drops sync.WaitGroup
	defer drops.Wait()
	for i, h := range all {
		l := s.lockers[i]
		switch {
		case errs[i] != nil:
			drops.Go(func() { l.drop(ctx, h) })
			continue
		case given[0] != nil, h.Strays():
			l.under = nil
		}
		errs[i], given = given[0], given[1:]
		l.Forget(h)
	}
	if i := slices.Index(errs, holding.ErrNotHeld); i >= 0 { // it says that of the set
		errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil || err == holding.ErrNotHeld })
		if len(errs) == 0 {
			return holding.ErrNotHeld
		}
	}
	return errors.Join(errs...)
}

// Refresh renews what is held, and looks whether it is.
func (t *Taken) Refresh(ctx context.Context) error {
	for rest := t.All; len(rest) > 0; {
		n := 1 // how many are under one lease
		for n < len(rest) && rest[n].Lease == rest[0].Lease {
			n++
		}
		if err := holding.RefreshAll(ctx, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// Unlock has the set give back what is held.
func (t *Taken) Unlock(ctx context.Context) error { return t.set.End(ctx, t) }

// firstLost returns the first of the holdings that is lost, or nil.
func firstLost(all []*holding.Holding) *holding.Holding {
	for _, h := range all {
		if h.LostError() != nil {
			return h
		}
	}
	return nil
}
