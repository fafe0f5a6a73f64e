package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/keepalive"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/watch"
)

// startAfter is how long a contender has to last, at most, before it is looked after: long enough that short holdings do
// without, short enough to notice an operator's hand within 50 ms.
const startAfter = 25 * time.Millisecond

// upkeep is how a lease is looked after.
type upkeep struct {
	refresh, grace time.Duration
	log            *slog.Logger
}

// renewNow renews the lease of a session beside its renewer.
func (l *lease) renewNow(ctx context.Context) error {
	_, err := l.renew(ctx, l.surveyOf(nil))
	if err != nil {
		l.failed(ctx, err)
	}
	return err
}

// ripen has a contender looked after once it has lasted for about startAfter, or when the keeper has something to do if that is sooner. One timer
// serves all: to set one for each holding costs more than all else that is done for a short one.
func (l *lease) ripen(c *contender) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	switch {
	case c.ripens:
		return
	case l.validUntil().Until() < c.grace+startAfter:
		go c.settle()
	case len(l.young)+len(l.older) == 0:
		time.AfterFunc(startAfter/2, l.ripe)
		fallthrough
	default:
		l.young = append(l.young, c)
	}
	c.ripens = true
}

// ripe has those looked after who were young the last time.
func (l *lease) ripe() {
	l.crowd.Lock()
	old := l.older
	l.older, l.young = l.young, nil
	if len(l.older) > 0 {
		time.AfterFunc(startAfter/2, l.ripe)
	}
	l.crowd.Unlock()
	for _, c := range old {
		c.settle()
	}
}

// maintain starts the renewer and the keeper, unless they run.
func (l *lease) maintain() {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.renews || l.over != nil || l.ctx == nil || l.ctx.Err() != nil {
		return
	}
	l.renews = true
	ctx := l.ctx
	l.running.Go(func() { l.renewing(ctx) })
	l.running.Go(func() { l.keeping(ctx) })
}

// some returns as many contenders as one transaction can read, others each time.
func (l *lease) some() (some []*contender) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	for range min(len(l.all), l.contendersAtOnce()) {
		l.next = (l.next + 1) % len(l.all)
		some = append(some, l.all[l.next])
	}
	return some
}

// renewing is the renewer. It goes by the clock that does not stop in suspend: who has slept renews at once.
func (l *lease) renewing(ctx context.Context) {
	defer keepalive.Keep(l.client, l.first)()
	timer := boottime.NewTimer()
	defer timer.Close()
	for sleepUntil(ctx, timer, l.renewAt()) {
		if l.refreshed(ctx) {
			return
		}
	}
}

// refreshed renews the lease and looks after those who hang on it. It reports whether that is over.
func (l *lease) refreshed(ctx context.Context) (over bool) {
	if l.validUntil().Until() <= 0 { // after a suspend, and the keeper has not looked yet
		l.outlived()
	}
	if l.leaveToGhosts() {
		return true
	}
	resp, err := l.renew(ctx, l.surveyOf(l.some()))
	switch {
	case err != nil:
		return l.failed(ctx, err) || !retry.Sleep(ctx, pauseAfter(err))
	case resp == nil: // nobody to look after
		return !retry.Sleep(ctx, l.refresh)
	}
	l.notices.Log(l.log, slog.LevelDebug, "lease renewed", "lease", int64(l.id), "margin", l.wholeMargin(), "valid_for", l.validUntil().Until())
	for _, c := range l.everybody() {
		c.renewed()
	}
	for _, g := range l.haunters() {
		g.seek()
	}
	l.follow(resp.Header.Revision)
	return false
}

// pauseAfter is the time between two renewals that fail. One that is not permitted ends the stream
// of all, and its client logs in for the next.
func pauseAfter(err error) time.Duration {
	if retry.Code(err) == codes.PermissionDenied {
		return retry.PauseRefused
	}
	return retry.PauseMax
}

// follow sees to it, in the background, that the watches have told all up to a revision: those who were not read depend on it, and the next
// hand-over is late without.
func (l *lease) follow(revision int64) {
	if !l.follows.CompareAndSwap(false, true) {
		return
	}
	if !l.inBackground(func(ctx context.Context) {
		defer l.follows.Store(false)
		watch.WaitProgress(ctx, l.client, revision)
	}) {
		l.follows.Store(false)
	}
}

// failed draws conclusions from the error of a renewal or of a read. It reports whether the lease is of no use any more, or ctx has ended.
func (l *lease) failed(ctx context.Context, err error) bool {
	if !errors.Is(err, errLeaseGone) && !errors.Is(err, errHistoryLost) {
		return ctx.Err() != nil
	}
	l.finish(err)
	return true
}

// bereaved is told that a lock was lost by force. A lease of its own is not renewed any more. That of a session serves others: what is left of the
// lock under it is removed.
func (l *lease) bereaved(c *contender, reason Reason) {
	switch {
	case !l.shared:
		l.abandon()
	case reason == PlaceLost:
		c.retreat()
	}
}

// keeping is the keeper. It is apart from the renewer because that one may hang.
func (l *lease) keeping(ctx context.Context) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for {
		end := l.validUntil()
		switch left := end.Until(); {
		case left > l.grace:
			timer.Reset(end.Add(-l.grace))
		case left > 0:
			timer.Reset(end)
			for _, c := range l.everybody() {
				c.endangered()
			}
		default:
			l.outlived()
		}
		select {
		case <-timer.C:
		case <-l.keeper:
		case <-ctx.Done():
			return
		}
	}
}

// outlived says that validity has ended. With somebody who held a lock the lease is not renewed any more: it must go, with the lock.
// Who only waits may do so for longer than that: see enter.
func (l *lease) outlived() {
	held := false
	for _, c := range l.everybody() {
		held = c.outlived() || held
	}
	if !held {
		return
	}
	l.abandon()
	l.finish(errLeaseGone)
}

// abandon ends the renewals, and does not wait for that.
func (l *lease) abandon() {
	l.retire(errLeaseGone)
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// sleepUntil waits for an instant and reports whether ctx is still alive.
func sleepUntil(ctx context.Context, timer *boottime.Timer, at boottime.Instant) bool {
	timer.Reset(at)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
