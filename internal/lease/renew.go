package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/keepalive"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/watch"
)

// RenewNow renews the lease beside the renewer, and reads the states of some members, or the lock's
// key if they have none. With an empty key it reads what the renewer would. If that is nothing, the
// renewal does not count, and the lease is useless (ErrGone).
func (l *Lease) RenewNow(ctx context.Context, lock string, some ...Member) error {
	resp, err := l.Renew(ctx, func(ctx context.Context) (*pb.TxnResponse, error) {
		if lock == "" {
			return reader{l}.some(ctx)
		}
		return reader{l}.states(ctx, some, lock)
	})
	if err == nil && resp == nil {
		err = ErrGone
	}
	l.failed(ctx, err)
	return err
}

// Renew renews the lease and returns the answer to a read made after it. It does not give up before
// ctx is done, or the lease is known to be gone (ErrGone), or the history is not what it was
// (ErrHistoryLost), or the renewal or the read is refused.
//
// A leader that was stopped or cut off may still acknowledge renewals that its successor never
// hears of. So a renewal counts only when a linearizable read, sent after its answer, comes back
// with the same raft term: then whoever acknowledged it was the leader. Otherwise it is made again.
// Without anything to read it does not count, and there is no answer.
func (l *Lease) Renew(ctx context.Context, read func(context.Context) (*pb.TxnResponse, error)) (*pb.TxnResponse, error) {
	for {
		renewal, err := keepalive.Renew(ctx, l.client, l.id, l.ValidUntil(), l.first, func(err error) { l.noting(err) })
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			return nil, ErrGone
		case retry.IsRefused(err):
			return nil, l.noting(err)
		case err != nil:
			return nil, l.noting(retry.Ended(ctx, l.LastError()))
		}
		resp, err := read(ctx)
		if err != nil || resp == nil {
			return nil, l.noting(err)
		}
		if resp.Header.RaftTerm == renewal.Term {
			l.count(renewal.Sent, l.ttl)
			l.Notices.Log(l.log, slog.LevelDebug, "lease renewed", "lease", fmt.Sprintf("%x", int64(l.id)),
				"margin", l.wholeMargin(l.ttl), "valid_for", l.ValidUntil().Until())
			return resp, nil
		}
		if !retry.Sleep(ctx, retry.PauseMin) {
			return nil, context.Cause(ctx)
		}
	}
}

// Maintain starts the renewer and the watchdog, unless they run.
func (l *Lease) Maintain() {
	l.members.mu.Lock()
	defer l.members.mu.Unlock()
	if l.renews || l.over != nil || l.ctx == nil || l.ctx.Err() != nil {
		return
	}
	l.renews = true
	ctx := l.ctx
	l.running.Go(func() { renewer{l}.run(ctx) })
	l.running.Go(func() { watchExpiry(ctx, l) })
}

// A renewer is the goroutine that renews a lease. It goes by the clock that does not stop in
// suspend: after a suspend it renews at once.
type renewer struct{ *Lease }

func (l renewer) run(ctx context.Context) {
	defer keepalive.Keep(l.client, l.first)()
	defer l.late.End()
	timer := boottime.NewTimer()
	defer timer.Close()
	for SleepUntil(ctx, timer, l.renewAt(l.timing.Refresh)) {
		if l.renewOnce(ctx) {
			return
		}
	}
}

// renewOnce renews the lease and looks after its members. It reports whether that is over.
func (l renewer) renewOnce(ctx context.Context) (over bool) {
	if l.ValidUntil().Until() <= 0 { // after a suspend, and the watchdog has not looked yet
		l.expire()
	}
	valid := l.ValidUntil()
	l.late.Begin((valid.Until()-l.timing.Grace)/2, func() bool { // half of the time that there is
		left := valid.Until()
		if l.ValidUntil() != valid || left <= l.timing.Grace {
			return false // it was renewed, or it is too late
		}
		l.Notices.Log(l.log, slog.LevelWarn, "the lease is not renewed yet", "lease", fmt.Sprintf("%x", int64(l.id)),
			"valid_for", left.Round(time.Millisecond), "cause", retry.Told(l.LastError()))
		return true
	})
	resp, err := l.Renew(ctx, reader(l).some)
	switch {
	case err != nil:
		return l.failed(ctx, err) || !retry.Sleep(ctx, retry.PauseMax)
	case l.late.End():
		l.Notices.Log(l.log, slog.LevelWarn, "the lease is renewed again", "lease", fmt.Sprintf("%x", int64(l.id)))
	}
	if resp == nil { // no member to look after
		return !l.idle(ctx)
	}
	for _, m := range l.everybody() {
		m.OnRenewed()
	}
	for _, r := range l.everyRemnant() {
		r.OnRenewed()
	}
	l.follow(resp.Header.Revision)
	return false
}

// idle waits until the next renewal of a lease that has nothing to read, and reports whether ctx is
// still alive. Its renewals do not count: if a lock is acquired meanwhile, the next is due at once.
func (l renewer) idle(ctx context.Context) bool {
	timer := time.NewTimer(l.timing.Refresh)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.probed:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// follow sees to it, in the background, that the watches have told all up to a revision: members
// that were not read depend on it, and without it the next hand-over is late.
func (l renewer) follow(revision int64) {
	if !l.follows.CompareAndSwap(false, true) {
		return
	}
	if !l.Go(func(ctx context.Context) {
		defer l.follows.Store(false)
		if watch.WaitProgress(ctx, l.client, revision) {
			return
		}
		for _, m := range l.everybody() { // also where no watch is created
			l.ScheduleRead(m)
		}
	}) {
		l.follows.Store(false)
	}
}

// watchExpiry is the watchdog. It is apart from the renewer because that one may hang.
func watchExpiry(ctx context.Context, l *Lease) {
	timer := boottime.NewTimer()
	defer timer.Close()
	for {
		end := l.ValidUntil()
		switch left := end.Until(); {
		case left > l.timing.Grace:
			timer.Reset(end.Add(-l.timing.Grace))
		case left > 0:
			timer.Reset(end)
			l.late.MuteIf(l.tell(Member.OnGrace))
		default:
			l.late.MuteIf(l.expire())
		}
		select {
		case <-timer.C:
		case <-l.ring:
		case <-ctx.Done():
			return
		}
	}
}
