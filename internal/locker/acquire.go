package locker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/holding"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// prepare returns the lease to stand in line with: the session's, or one of its own that has at
// least half of its life before it.
func (l *Locker) prepare(ctx context.Context, s Settings) (*lease.Lease, error) {
	if l.session.IsShared {
		if err := l.awaitAnswer(ctx, s); err != nil {
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
		return l.session.Prepare(ctx, l.key, s.Timing, s.Log)
	}
	if err := l.session.Err(); err != nil {
		return nil, err
	}
	if ls := l.atHand; ls != nil && ls.ValidUntil().Until() > ls.TTL()/2 && ls.TTL() >= s.TTL {
		return ls, nil
	}
	if l.atHand != nil {
		l.session.Debts.OweLease(l.atHand)
		l.atHand = nil
	}
	ls, err := l.session.Grant(ctx, s.Timing)
	if l.atHand = ls; err == nil {
		l.session.Debts.PayNow(ctx)
	}
	return ls, err
}

// awaitAnswer waits until etcd answers, if it has not answered each request to join of the place
// before. Such a place leaves something to look after, and the next one would leave more.
func (l *Locker) awaitAnswer(ctx context.Context, s Settings) error {
	if l.unknown == nil || l.unknown.Settled() || l.unknown.Lease.Err() != nil {
		l.unknown = nil
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.Connect, holding.ErrNoAnswer)
	defer cancel()
	_, err := l.unknown.Lease.Read(ctx, wire.ProbeRead(l.key))
	if errors.Is(err, lease.ErrHistoryLost) { // nothing of the place is left
		return nil
	}
	return err
}

// acquire takes a place in line and waits for its turn. Unanswered rings if etcd does not answer at
// the start, or, with try, at all.
func (l *Locker) acquire(ctx context.Context, s Settings, try bool, unanswered *time.Timer) (*holding.Holding, error) {
	answered, said := false, ""
	ls, err := l.prepare(ctx, s)
	unanswered.Reset(s.Connect)
	for {
		if err != nil {
			return nil, err
		}
		h := l.stand(ls, s, try)
		err = h.Acquire(ctx, func() {
			if answered = true; !try {
				unanswered.Stop()
			}
		})
		l.remember(h)
		if err == nil {
			about := []any{"key", l.key, "token", h.Token(), "mode", s.Mode}
			if s.Mode.Slots() > 0 {
				about = append(about, "slot", h.Seat()-1)
			}
			h.Say(slog.LevelDebug, "lock acquired", about...)
			if l.Granted != nil {
				l.Granted()
			}
			return h, nil
		}
		nothing := wroteNothing(h)
		withoutTail := l.avoidTail(h, err, nothing)
		if withoutTail && nothing { // refused as a whole: nothing was written
			ls.Remove(h.Contender)
			err = nil
			continue
		}
		switch {
		case queue.IsBusy(err):
			return nil, l.busy(ctx, h, nothing)
		case queue.IsOtherKind(err):
			l.withdraw(ctx, h, nothing)
			return nil, l.otherMode(h)
		}
		l.under = nil
		if l.mayStartOver(ctx, h, err, answered && !try) {
			// Without the tail there was no place to lose.
			if why := whyLost(h, err); why != said && !withoutTail {
				h.Say(slog.LevelWarn, "place in line lost, taking another", "key", l.key, "cause", why)
				said = why
			}
			ls, err = l.startOver(ctx, h, s, err)
			continue
		}
		h.GiveUp(ctx)
		l.atHand = nil
		if retry.IsDenied(err) {
			l.unlinked = false // it was not the tail alone; the next time all may be allowed
		}
		return nil, l.failed(causeOf(ctx, err), s)
	}
}

// failed returns the error of a call, which says what its mode needs where that is not allowed.
func (l *Locker) failed(cause error, s Settings) error {
	needs := ""
	switch tail, below := wire.Tail(l.key), wire.Prefix(l.key); {
	case !retry.IsDenied(cause):
	case s.Mode.Slots() > 0:
		needs = fmt.Sprintf(" (who takes a slot needs to write %q and all below %q)", tail, below)
	case s.Mode == mode.Shared:
		needs = fmt.Sprintf(" (who shares the lock needs to read %q, and to write all below %q)", tail, below)
	}
	return fmt.Errorf("acquiring lock %q: %w%s", l.key, cause, needs)
}

// wroteNothing reports whether a holding has left nothing, and will not.
func wroteNothing(h *holding.Holding) bool { return h.Created() == 0 && !h.Strays() }

// stand returns a holding for the next place in line, which has not begun.
func (l *Locker) stand(ls *lease.Lease, s Settings, try bool) *holding.Holding {
	return holding.New(queue.Options{
		Place:   l.nextPlace(ls, s),
		Lease:   ls,
		Timing:  s.Timing,
		Log:     s.Log,
		OnRenew: s.OnRenew,
		Try:     try,
		Lone:    l.alone,
		Slot:    l.nextSlot(s),
	}, holding.Lock{Owner: l, Public: l.public, Debts: l.session.Debts, Notes: &l.session.Notes, OnWait: s.OnWait})
}

// remember notes a holding that has ended, or has the lock, whose requests to join were not all
// answered.
func (l *Locker) remember(h *holding.Holding) {
	if l.unknown = nil; h.Lease.IsShared() && !h.Settled() {
		l.unknown = h.Contender
	}
}

// whyLost says why a place is lost. Etcd deletes it with its lease, and may tell of that first.
func whyLost(h *holding.Holding, err error) string {
	var end *queue.EndError
	if errors.As(err, &end) && end.End == message.Deleted && h.Lease.ValidUntil().Until() <= 0 {
		return "its lease has run out"
	}
	return err.Error()
}

// causeOf returns what a caller is told of why acquire has failed.
func causeOf(ctx context.Context, err error) error {
	var end *queue.EndError
	switch {
	case ctx.Err() != nil:
		return retry.Cause(ctx, err)
	case retry.IsNoSpace(err):
		return rpctypes.ErrNoSpace
	case errors.As(err, &end) && end.End == message.Failed:
		return end.Err
	}
	return err
}

// mayStartOver reports whether another place may be taken. In line says that etcd has answered
// before, and that the lock is waited for.
func (l *Locker) mayStartOver(ctx context.Context, h *holding.Holding, err error, inLine bool) bool {
	switch {
	case ctx.Err() != nil:
		return false
	case retry.IsNoSpace(err):
		return inLine // then it waits until there is space
	case retry.IsDenied(err):
		return h.Place.Linked && l.unlinked
	}
	return errors.Is(err, queue.ErrStartOver)
}

// busy returns an error that names who is there.
func (l *Locker) busy(ctx context.Context, h *holding.Holding, nothing bool) error {
	busy := h.Busy()
	if h.Place.Mode.Slots() > 0 { // those who have one, and their slots, do not stand before others
		busy.Below += 1 - 2*busy.Taken
	}
	if h.Created() > 0 {
		busy.Below-- // our own
	}
	l.withdraw(ctx, h, nothing)
	busy.Below = max(busy.Below, 1) // without places, the key was made by hand
	return l.public.Busy(h, busy)
}

// otherMode returns an error that says how the lock is used.
func (l *Locker) otherMode(h *holding.Holding) error {
	oldest := h.Oldest()
	id := record.Shown(oldest.Value)
	if r, err := record.Parse(oldest.Value); err == nil {
		id = r.ID
	}
	return l.public.OtherMode(h, wire.ModeOf(l.key, oldest), id)
}

// withdraw ends a holding that has not got the lock. Nothing says that it has written nothing.
func (l *Locker) withdraw(ctx context.Context, h *holding.Holding, nothing bool) {
	if nothing {
		h.Lease.Remove(h.Contender) // the lease can serve again
		return
	}
	l.under = nil
	h.GiveUp(ctx)
	l.atHand = nil
}

// startOver clears what a holding may have left, and prepares for the next one. It waits for etcd
// as long as it takes.
func (l *Locker) startOver(ctx context.Context, h *holding.Holding, s Settings, err error) (*lease.Lease, error) {
	l.atHand = nil
	if err := h.Clear(ctx); err != nil {
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
	}
	for noSpace := retry.IsNoSpace(err); ; {
		if noSpace && !retry.Sleep(ctx, retry.PauseMax) {
			return nil, context.Cause(ctx)
		}
		ls, err := l.prepare(ctx, s)
		noSpace = retry.IsNoSpace(err)
		if ctx.Err() != nil || !noSpace && !errors.Is(err, holding.ErrNoAnswer) {
			return ls, err
		}
	}
}
