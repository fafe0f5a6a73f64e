package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/perclient"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/queue"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// acquire takes a place in line and waits for its turn. Unanswered rings if etcd does not answer at
// the start, or, with try, at all.
func (l *Lock) acquire(ctx context.Context, s settings, try bool, unanswered *time.Timer) (*holding, error) {
	answered, said := false, ""
	ls, err := l.prepare(ctx, s)
	for again := false; ; again = true {
		if err != nil {
			return nil, err
		}
		if !again || !try && !answered {
			unanswered.Reset(s.Connect)
		}
		h := newHolding(l, s, ls, try)
		err = h.queue.Acquire(ctx, func() {
			if answered = true; !try {
				unanswered.Stop()
			}
		})
		if err == nil {
			s.log.Debug("lock acquired", "key", l.key, "token", h.queue.Token())
			return h, nil
		}
		nothing := h.queue.Created() == 0 && !h.queue.Strays()
		if l.avoidTail(h, err, nothing) && nothing { // refused as a whole: nothing was written
			ls.Remove(h.queue)
			err = nil
			continue
		}
		var end *queue.EndError
		if errors.As(err, &end) && end.End == protocol.Busy {
			return nil, l.busy(ctx, h, nothing)
		}
		l.under = nil
		if l.mayStartOver(ctx, h, err, answered && !try) {
			if why := err.Error(); why != said {
				s.log.Warn("place in line lost, taking another", "key", l.key, "cause", why)
				said = why
			}
			ls, err = l.startOver(ctx, h, s, err)
			continue
		}
		h.giveUp(ctx)
		l.atHand = nil
		if retry.IsDenied(err) {
			l.unlinked = false // it was not the tail alone; the next time all may be allowed
		}
		return nil, fmt.Errorf("acquiring lock %q: %w", l.key, causeOf(ctx, err))
	}
}

// causeOf returns what a caller is told of why acquire has failed.
func causeOf(ctx context.Context, err error) error {
	var end *queue.EndError
	switch {
	case ctx.Err() != nil:
		return retry.Cause(ctx, err)
	case retry.IsNoSpace(err):
		return rpctypes.ErrNoSpace
	case errors.As(err, &end) && end.End == protocol.Failed:
		return end.Err
	}
	return err
}

// avoidTail reports whether what was denied may be allowed without the tail. Then the next place is
// taken without it.
func (l *Lock) avoidTail(h *holding, err error, nothing bool) bool {
	if !retry.IsDenied(err) || !h.place.Linked || !nothing && h.queue.Created() > 0 {
		return false
	}
	l.unlinked, l.under = true, nil
	return true
}

// mayStartOver reports whether another place may be taken. In line says that etcd has answered
// before, and that the lock is waited for.
func (l *Lock) mayStartOver(ctx context.Context, h *holding, err error, inLine bool) bool {
	switch {
	case ctx.Err() != nil:
		return false
	case retry.IsNoSpace(err):
		return inLine // then it waits until there is space
	case retry.IsDenied(err):
		return h.place.Linked && l.unlinked
	}
	return errors.Is(err, queue.ErrStartOver)
}

// busy returns a *BusyError that names who is there.
func (l *Lock) busy(ctx context.Context, h *holding, nothing bool) error {
	line := h.queue.Busy()
	places := line.Keys
	if h.queue.Created() > 0 {
		places-- // our own
	}
	if nothing {
		h.lease.Remove(h.queue) // the lease can serve again
	} else {
		l.under = nil
		h.giveUp(ctx)
		l.atHand = nil
	}
	// Without places, the key was made by hand.
	busy := &BusyError{Key: l.key, Place: max(places, 1)}
	if line.Held {
		busy.Holder, busy.held = wire.Shown(line.Holder), true
	}
	return busy
}

// startOver fences off what a holding may have left, and prepares for the next. It waits for etcd
// as long as it takes.
func (l *Lock) startOver(ctx context.Context, h *holding, s settings, err error) (*lease.Lease, error) {
	l.atHand = nil
	if h.lease.IsShared() {
		h.queue.Leave(ended)
		// Each join whose outcome is unknown leaves something to look after: the next one waits
		// until etcd answers.
		if _, err := h.lease.Read(ctx, wire.ProbeRead(l.key)); err != nil && !errors.Is(err, lease.ErrHistoryLost) {
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
	} else {
		h.queue.Abandon()
		if err := lease.Revoke(ctx, l.client, h.lease.ID(), h.lease.First()); err != nil {
			h.fence(ctx)
			return nil, fmt.Errorf("acquiring lock %q: %w", l.key, err)
		}
		h.removeDetached(ctx)
	}
	for noSpace := retry.IsNoSpace(err); ; {
		if noSpace && !retry.Sleep(ctx, retry.PauseMax) {
			return nil, context.Cause(ctx)
		}
		ls, err := l.prepare(ctx, s)
		noSpace = retry.IsNoSpace(err)
		if ctx.Err() != nil || !noSpace && !errors.Is(err, ErrNoAnswer) {
			return ls, err
		}
	}
}

// ended is a context that is done.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// giveUp takes back the place of a holding that waits no more, also when ctx has ended, and the
// lock if it was granted meanwhile. What cannot be taken back in time runs out, or the session
// takes it back later.
func (h *holding) giveUp(ctx context.Context) {
	if h.lease.IsShared() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit)
		defer cancel()
		h.queue.Leave(ctx)
		return
	}
	if h.queue.Created() > 0 && !perclient.IsClosed(h.lease.Client()) {
		// The lease goes in any case; to leave first gives on what was granted meanwhile.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceLimit/2)
		h.queue.Leave(ctx)
		cancel()
	}
	h.queue.Abandon()
	h.fence(ctx)
}
