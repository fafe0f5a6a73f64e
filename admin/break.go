package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Request says who has asked a holder to stop, from where and why. The *etcdlock.LostError of
// that holder wraps one, for errors.As.
type Request = record.Break

// Errors of Break and Force, to be asked for with errors.Is.
var (
	// ErrNotHolder says that nobody holds the lock with that token any more. Nothing was done.
	ErrNotHolder = errors.New("it is not held with that token")

	// ErrAlive says that the holder renews its lease. Nothing was done.
	ErrAlive = errors.New("its holder renews its lease")

	// ErrMayBeAlive says that it was not seen whether the holder renews its lease, as that takes
	// nine tenths of its TTL. Nothing was done.
	ErrMayBeAlive = errors.New("it is not known yet whether its holder renews its lease")

	// ErrMustForce says that the holder is one of etcd's own Mutex, etcdctl lock or the v3lock
	// service, or a key that somebody has put by hand. Nothing tells it to stop.
	ErrMustForce = errors.New("nothing tells its holder to stop")

	// ErrUnknownOutcome says that etcd did not answer: the holder may have been asked, or forced
	// out.
	ErrUnknownOutcome = errors.New("it is not known whether that was done")
)

// MostReason is how many bytes a reason may have.
const MostReason = 256

func checkReason(reason string) error {
	if n := len(reason); n < 1 || n > MostReason {
		return fmt.Errorf("the reason has %d bytes, not 1 to %d", n, MostReason)
	}
	return nil
}

// A Target is one holder of a lock, as it was read.
type Target struct {
	Lock  string
	Token int64  // its fencing token; of who shares the lock, when its place was created
	ID    string // may be empty, or anything
	Host  string // empty if it is not known, like the next two
	PID   int
	Since time.Time // when it joined the line
	Mode  string    // as its name for programs: exclusive, shared or slots
	Slot  int       // -1 if it has none
	Lease clientv3.LeaseID

	// Broken is who has asked it to stop before, nil if nobody is known to have. ByHand says that
	// somebody has who is not known: what makes it the holder was deleted or overwritten by hand.
	Broken *Request
	ByHand bool

	// Pause is what it says if it is a pause, which Resume ends. Else it is nil.
	Pause *Pausing

	// Obeys reports whether it can be asked to stop. It does not say that it will.
	Obeys bool

	key, place *mvccpb.KeyValue // that make it the holder; one and the same if it has no other
}

// Targets returns all holders of a lock, the first one first, and last who has put its key by hand.
// It returns none if the lock is free. It reads what Look reads, and needs the same permission.
func Targets(ctx context.Context, client *clientv3.Client, lock string) (all []Target, err error) {
	l, err := line.Whole(ctx, client, lock)
	if err != nil {
		return nil, fmt.Errorf("looking at lock %q: %w", lock, err)
	}
	holders := l.Holders
	if l.Hand != nil {
		holders = append(holders, *l.Hand)
	}
	for _, h := range holders {
		all = append(all, Target{
			Lock: lock, Token: h.Nonce, ID: h.ID, Host: h.Record.Host, PID: h.Record.PID, Since: h.Record.Since, Mode: l.Mode().Name(), Slot: slotOf(l, h),
			Lease: h.Lease, Broken: h.Broken, ByHand: h.ByHand, Pause: h.Pause, Obeys: h.Place != nil && !h.Mutex, key: h.Key, place: cmp.Or(h.Place, h.Key),
		})
	}
	return all, nil
}

// Find returns the holder of a lock that has a token. It fails with ErrNotHolder if nobody has.
func Find(ctx context.Context, client *clientv3.Client, lock string, token int64) (Target, error) {
	all, err := Targets(ctx, client, lock)
	if err != nil {
		return Target{}, err
	}
	i := slices.IndexFunc(all, func(t Target) bool { return t.Token == token })
	if i < 0 {
		return Target{}, fmt.Errorf("lock %q, token %d: %w", lock, token, ErrNotHolder)
	}
	return all[i], nil
}

// finder returns a function that finds the holder with a token, and fails with ErrPaused if that is
// a pause.
func finder(ctx context.Context, client *clientv3.Client, lock string, token int64) func() (Target, error) {
	return func() (Target, error) {
		t, err := Find(ctx, client, lock, token)
		if err == nil && t.Pause != nil {
			err = fmt.Errorf("lock %q: %w", lock, ErrPaused)
		}
		return t, err
	}
}

// Break asks the holder of a lock that has a token to stop. What it does not guarantee:
//
//   - That the holder stops. Break returns when etcd has the request; [Target.Await] waits for the
//     end of the holding.
//   - That it is the only one who asks. The first request counts, and is in Target.Broken, or, if
//     that was made by hand, only in Target.ByHand.
//
// Nobody else gets the lock before the holder has given it back, or its lease has ended. Other
// locks of its session go on, and so do other holders of this lock. The error of the holder says by
// whom, from where and why. The reason is required, 1 to [MostReason] bytes. At is now if it is
// zero.
//
// It fails with ErrNotHolder if nobody has the lock with that token any more: then nobody was hit.
// It fails with ErrMustForce, with ErrPaused if a pause has the lock, with what etcd refuses, and
// with ErrUnknownOutcome if etcd did not answer until ctx was done. The same call may be made
// again.
func Break(ctx context.Context, client *clientv3.Client, lock string, token int64, by Request) (Target, error) {
	if err := checkReason(by.Reason); err != nil {
		return Target{}, err
	}
	if by.Token = token; by.At.IsZero() {
		by.At = time.Now().UTC()
	}
	find := finder(ctx, client, lock, token)
	return until(ctx, client, lock, find, ErrNotHolder, func(t *Target) (*pb.TxnRequest, error) {
		switch {
		case t.Broken != nil, t.ByHand && t.Obeys: // by an earlier try, or by somebody else
			return nil, nil
		case !t.Obeys:
			return nil, fmt.Errorf("lock %q: %w", lock, ErrMustForce)
		}
		t.Broken = &by
		return wire.Break(string(t.key.Key), record.BrokenValue(&by, string(t.key.Value), t.key == t.place), t.key.ModRevision), nil
	})
}

// Force takes the lock away from the holder that has a token: it deletes what makes it the holder,
// and its place in line, and nothing else. What it does not guarantee: that the holder has stopped.
// The next one may start at once, so two may run at the same time.
//
// Unless evenIfAlive is set, it first watches the holder's lease until nine tenths of its TTL have
// passed without a renewal. It fails with ErrAlive if the lease is renewed, and with ErrMayBeAlive
// if ctx is done before. Otherwise it fails as Break does, but not with ErrMustForce.
func Force(ctx context.Context, client *clientv3.Client, lock string, token int64, evenIfAlive bool) (Target, error) {
	find := finder(ctx, client, lock, token)
	if !evenIfAlive {
		t, err := find()
		if err == nil {
			err = t.mustBeSilent(ctx, client)
		}
		if err != nil {
			return t, err
		}
	}
	return until(ctx, client, lock, find, ErrNotHolder, func(t *Target) (*pb.TxnRequest, error) {
		return wire.Force(string(t.key.Key), string(t.place.Key), t.key.ModRevision, t.place.ModRevision), nil
	})
}

// until finds the holder with a token, or a pause, and makes a request about it, until that was
// applied or refused for good, or find fails with gone. Without a request there is nothing to do.
func until[T any](ctx context.Context, client *clientv3.Client, lock string, find func() (T, error), gone error, ask func(*T) (*pb.TxnRequest, error)) (t T, err error) {
	var unknown error
	for {
		found, err := find()
		switch {
		case errors.Is(err, gone) && unknown != nil: // it may have been, by an earlier try
			return t, nil
		case err != nil && unknown != nil:
			return t, fmt.Errorf("lock %q: %w: %w", lock, ErrUnknownOutcome, unknown)
		case err != nil:
			return found, err
		}
		t = found
		req, err := ask(&t)
		switch {
		case req == nil || err != nil:
			return t, err
		case retry.IsNoSpace(unknown): // that is settled, and was not done
			return t, fmt.Errorf("lock %q: %w", lock, unknown)
		}
		resp, err := clientv3.RetryKVClient(client).Txn(ctx, req)
		err = rpctypes.Error(err)
		switch {
		case err == nil && resp.Succeeded:
			return t, nil
		case retry.IsRefused(err):
			return t, fmt.Errorf("lock %q: %w", lock, err)
		case err != nil && unknown == nil && retry.IsNoSpace(err):
			unknown = err
		case err != nil && !retry.Sleep(ctx, retry.PauseMax):
			return t, fmt.Errorf("lock %q: %w: %w", lock, ErrUnknownOutcome, err)
		case err != nil && unknown == nil:
			unknown = err
		}
	}
}

// mustBeSilent fails unless nine tenths of the TTL pass without a renewal, or the lease ends. How
// much is left says little of itself: some renew late.
func (t Target) mustBeSilent(ctx context.Context, client *clientv3.Client) error {
	if t.Lease == clientv3.NoLease {
		return nil
	}
	var began time.Time
	for first := int64(-1); ; {
		now := time.Now()
		resp, err := client.TimeToLive(ctx, t.Lease)
		switch passed := now.Sub(began).Seconds(); {
		case ctx.Err() != nil:
			return fmt.Errorf("lock %q: %w", t.Lock, ErrMayBeAlive)
		case err != nil:
			return err
		case resp.TTL < 0:
			return nil
		case first < 0:
			first, began = resp.TTL, time.Now()
		case float64(resp.TTL) > float64(first+1)-passed: // etcd says whole seconds
			return fmt.Errorf("lock %q: %w", t.Lock, ErrAlive)
		case passed > 0.9*float64(resp.GrantedTTL):
			return nil
		}
		retry.Sleep(ctx, retry.PauseMax)
	}
}

// Await waits until the holder has given the lock back, or its lease has ended: its place in line
// is gone, and what makes it the holder. It fails when ctx is done, and if etcd does not let it
// look. An etcd that does not answer is waited for.
func (t Target) Await(ctx context.Context, client *clientv3.Client) error {
	for {
		err := line.AwaitGone(ctx, client, t.place)
		if err == nil {
			_, err = Find(ctx, client, t.Lock, t.Token)
		}
		switch {
		case errors.Is(err, ErrNotHolder):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case retry.IsDenied(err), errors.Is(err, line.ErrEnded):
			return err
		}
		retry.Sleep(ctx, retry.PauseMax)
	}
}
