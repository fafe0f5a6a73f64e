package etcdlock

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/etcdlock/etcdlock/internal/boottime"
)

// startAfter is how long a contender has to last, at most, before it is looked after: long enough that short holdings do
// without, short enough to notice an operator's hand within 50 ms.
const startAfter = 25 * time.Millisecond

// readAtOnce is of how many contenders one transaction reads the state: etcd takes 128 operations, each needs up to three.
const readAtOnce = 32

// tenants are the contenders that hang on a lease, and what is done for all of them together. Three goroutines work for them: the
// renewer, which makes RPCs and may hang; the keeper, which does nothing but watch the clock; and now and then the looker,
// which reads what etcd has of those of whom a watch told something.
//
// The lease of a Lock of its own has goroutines while a contender lasts. That of a session has them until the session ends.
type tenants struct {
	upkeep
	shared bool   // of a session
	probe  string // a key that may be read, if there is nobody of whom to read the state: that of the last lock that was acquired

	crowd   sync.Mutex
	all     []*contender
	next    int // whose state is read at the next renewal
	unseen  []*contender
	young   []*contender // who may not last for long enough to be looked after
	older   []*contender // who were young before them
	ghosts  []*ghost
	looks   bool  // the looker runs
	renews  bool  // the renewer and the keeper run
	over    error // why the lease is of no use any more
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// upkeep is how a lease is looked after.
type upkeep struct {
	refresh, grace time.Duration
	log            *slog.Logger
}

// attach takes a contender in. It returns why the lease is of no use any more, if so.
func (l *lease) attach(c *contender) error {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if !l.shared {
		l.upkeep = upkeep{c.refresh, c.grace, c.log}
	}
	l.revive()
	c.seat = len(l.all)
	l.all = append(l.all, c)
	return l.over
}

// share makes the lease a session's. It is looked after from now on.
func (l *lease) share(u upkeep) {
	l.crowd.Lock()
	l.upkeep, l.shared = u, true
	l.revive()
	l.crowd.Unlock()
	l.maintain()
}

func (l *lease) setProbe(key string) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	l.probe = key
}

// renewNow renews the lease of a session beside its renewer.
func (l *lease) renewNow(ctx context.Context) error {
	_, ops := l.glance(nil)
	_, err := l.renew(ctx, ops...)
	if err != nil {
		l.failed(ctx, err)
	}
	return err
}

// revive is called with crowd locked.
func (l *lease) revive() {
	if l.ctx == nil {
		l.ctx, l.cancel = context.WithCancel(context.Background())
	}
}

// detach lets a contender go. For the last one of a Lock's own lease the goroutines end with it.
func (l *lease) detach(c *contender) {
	l.crowd.Lock()
	if c.seat < 0 {
		l.crowd.Unlock()
		return
	}
	last := len(l.all) - 1
	l.all[c.seat] = l.all[last]
	l.all[c.seat].seat = c.seat
	l.all[last] = nil
	l.all = l.all[:last]
	c.seat = -1
	empty := last == 0 && !l.shared
	l.crowd.Unlock()
	if empty {
		l.halt()
	}
}

// halt ends the goroutines and waits for them.
func (l *lease) halt() {
	l.crowd.Lock()
	if l.ctx == nil {
		l.crowd.Unlock()
		return
	}
	l.cancel()
	l.crowd.Unlock()
	l.running.Wait()
	l.crowd.Lock()
	defer l.crowd.Unlock()
	l.ctx, l.renews, l.looks, l.unseen = nil, false, false, nil
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

// everybody returns the contenders as they are now.
func (l *lease) everybody() []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return append([]*contender(nil), l.all...)
}

// some returns as many contenders as one transaction can read, others each time, and whether that is all of them.
func (l *lease) some() (some []*contender, all bool) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	for range min(len(l.all), readAtOnce) {
		l.next = (l.next + 1) % len(l.all)
		some = append(some, l.all[l.next])
	}
	return some, len(some) == len(l.all)
}

// renewing is the renewer. It goes by the clock that does not stop in suspend: who has slept renews at once.
func (l *lease) renewing(ctx context.Context) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for sleepUntil(ctx, timer, l.sentAt().Add(l.refresh)) {
		if l.refreshed(ctx) {
			return
		}
	}
}

// refreshed renews the lease and looks after those who hang on it. It reports whether that is over.
func (l *lease) refreshed(ctx context.Context) (over bool) {
	some, all := l.some()
	glances, ops := l.glance(some)
	resp, err := l.renew(ctx, ops...)
	for i := 0; isRefused(err) && i < len(some) && len(some) > 1; i++ { // one that may not be read must not cost the others their lease
		glances, ops = l.glance(some[i : i+1])
		resp, err = l.renew(ctx, ops...)
	}
	if err != nil {
		return l.failed(ctx, err) || !sleep(ctx, pauseMax)
	}
	l.log.Debug("lease renewed", "lease", int64(l.id), "valid_for", l.validUntil().Until())
	judgeAll(glances, resp)
	for _, c := range l.everybody() {
		c.renewed()
	}
	for _, g := range l.haunters() {
		g.seek()
	}
	if !all {
		reach(ctx, l.client, resp.Header.Revision)
	}
	return false
}

// inBackground runs something for as long as it takes, at most until the lease is not looked after any more. It reports whether it does.
func (l *lease) inBackground(do func(context.Context)) bool {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		return false
	}
	ctx := l.ctx
	l.running.Go(func() { do(ctx) })
	return true
}

// haunters returns the places that the session takes back.
func (l *lease) haunters() []*ghost {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return append([]*ghost(nil), l.ghosts...)
}

// glance is the read of several contenders' states in one revision.
func (l *lease) glance(some []*contender) (glances []glance, ops []*operation) {
	for _, c := range some {
		g, o := c.glance()
		glances, ops = append(glances, g), append(ops, o...)
	}
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if len(ops) == 0 && l.probe != "" {
		ops = append(ops, exists(l.probe))
	}
	return glances, ops
}

// judgeAll gives each contender its part of the answer.
func judgeAll(glances []glance, resp *answer) {
	n := 0
	for _, g := range glances {
		n = g.learn(resp, n)
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

// finish says that the lease is of no use any more, and why.
func (l *lease) finish(err error) {
	for _, c := range l.retire(err) {
		c.bereft(err)
	}
}

// retire says why the lease is of no use any more, and returns who has to be told. Whoever comes later finds out by itself.
func (l *lease) retire(why error) []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.over == nil {
		l.over = why
	}
	return append([]*contender(nil), l.all...)
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

// gone returns why the lease is of no use any more, nil if it is, as far as is known.
func (l *lease) gone() error {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	return l.over
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

// look has a contender's state read, soon.
func (l *lease) look(c *contender) {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil || c.unseen || c.seat < 0 {
		return
	}
	c.unseen = true
	l.unseen = append(l.unseen, c)
	if !l.looks {
		l.looks = true
		ctx := l.ctx
		l.running.Go(func() { l.looking(ctx) })
	}
}

// looking is the looker.
func (l *lease) looking(ctx context.Context) {
	for {
		some := l.nextUnseen()
		if len(some) == 0 {
			return
		}
		glances, ops := l.glance(some)
		resp, err := l.read(ctx, ops...)
		if err != nil {
			l.failed(ctx, err)
			return
		}
		judgeAll(glances, resp)
	}
}

// nextUnseen returns contenders that are to be looked at; with none, the looker has ended.
func (l *lease) nextUnseen() []*contender {
	l.crowd.Lock()
	defer l.crowd.Unlock()
	n := min(len(l.unseen), readAtOnce)
	some := l.unseen[:n:n]
	l.unseen = l.unseen[n:]
	for _, c := range some {
		c.unseen = false
	}
	l.looks = n > 0
	return some
}
