package admin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A Pausing says who keeps everybody out of a lock, from where, why and until when.
type Pausing = record.Pause

// Errors of Pause and Resume, to be asked for with errors.Is.
var (
	// ErrPaused says that somebody has paused the lock, or waits to do so. Nothing was done.
	ErrPaused = errors.New("it is paused")

	// ErrNotPaused says that no pause of the lock has that token any more. Nothing was done.
	ErrNotPaused = errors.New("no pause has that token")

	// ErrResumed says that a pause was ended while it waited for its turn.
	ErrResumed = errors.New("the pause was ended while it waited")
)

// Bounds of how long a pause may last.
const (
	LeastPause = time.Second
	MostPause  = 31 * 24 * time.Hour
)

// A PauseEntry is a pause in the line for a lock: it keeps everybody out, or, if Until is zero,
// waits for its turn.
type PauseEntry struct {
	Pausing
	Lock  string
	Token int64            // tells it from all other pauses: the revision that created its place
	Lease clientv3.LeaseID // of its own
}

// Times of a pause that waits.
const (
	giveBackWithin = 5 * time.Second
	lookAgain      = 10 * time.Second // in case that a watch has fallen silent
	silence        = 5 * time.Second  // etcd counts as away after that
)

// Pause keeps everybody out of a lock: it waits in line until nobody has the lock who came before,
// and then returns. Etcd's Mutex waits for it as well. What it does not guarantee:
//
//   - That it lasts until somebody ends it. It ends by itself when the length has passed, which
//     counts from when Pause returns; nobody renews it. Etcd may round a length of a second or two
//     up. Pausing.Until says when.
//   - That it stays. Whoever may take the lock may end the pause, with Resume or otherwise.
//   - That a holder stops. It waits for those who have the lock, or stand in line before it. Who
//     joins later waits for the pause, also while that waits.
//   - That nothing is left of it where this process is killed while it waits. The pause keeps its
//     place then, until the length has passed, or somebody ends it with Resume.
//
// The length is in whole seconds, from [LeastPause] to [MostPause]; the reason is required, 1 to
// [MostReason] bytes. At is now if it is zero, and Until is set.
//
// Tell, which may be nil, is called with a nil error when the pause has joined the line and has to
// wait, with what etcd has said when etcd does not answer meanwhile, and with nil when it does
// again. It has to return soon: no two calls are made at a time, and Pause waits for them.
//
// It fails with ErrPaused, and returns that pause, if the lock is paused already, or somebody waits
// to pause it; with ErrResumed if somebody ends the pause while it waits; with the cause of ctx,
// and with what etcd refuses. Nothing is left in etcd then. If it cannot make sure of that within
// 5 s, its error is ErrUnknownOutcome as well: what may be left ends when the length has passed.
func Pause(ctx context.Context, client *clientv3.Client, lock string, length time.Duration, by Pausing, tell func(PauseEntry, error)) (PauseEntry, error) {
	none := PauseEntry{}
	if err := checkReason(by.Reason); err != nil {
		return none, err
	}
	if length < LeastPause || length > MostPause || length%time.Second != 0 {
		return none, fmt.Errorf("a pause of %v is not possible, only whole seconds up to %v", length, MostPause)
	}
	if by.Until = (time.Time{}); by.At.IsZero() {
		by.At = time.Now().UTC()
	}
	p := &pause{PauseEntry: PauseEntry{Pausing: by, Lock: lock, Token: math.MaxInt64}, client: client, tell: tell}
	if err := p.late(func() error { return p.onlyOne(ctx) }); err != nil {
		return p.other, withCause(ctx, err)
	}
	var granted *lease.Lease
	err := p.late(func() (err error) {
		granted, err = lease.Grant(ctx, client, lease.Timing{TTL: length})
		return err
	})
	if err != nil {
		if owed := (*lease.GrantError)(nil); errors.As(err, &owed) && owed.Owed != 0 {
			p.giveBack(ctx, owed.Owed) // without a key under it, it keeps nobody out
		}
		return none, fmt.Errorf("pausing lock %q: %w", lock, err)
	}
	p.lease, p.Lease = granted, granted.ID()
	p.place = wire.MutexPlace(lock, p.Lease) // so everybody waits for it
	if err = p.late(func() error { return p.join(ctx) }); err == nil {
		err = p.wait(ctx)
	}
	if err == nil {
		return p.PauseEntry, nil
	}
	err = fmt.Errorf("pausing lock %q: %w", lock, withCause(ctx, err))
	if failed := p.giveBack(ctx, p.Lease); failed != nil {
		err = fmt.Errorf("%w; %w: %w", err, ErrUnknownOutcome, failed)
	}
	return p.other, err
}

// withCause returns the error of something that ctx may have ended, with the cause of that.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return retry.Ended(ctx, err)
}

// A pause is one that is being made.
type pause struct {
	PauseEntry
	client *clientv3.Client
	lease  *lease.Lease
	place  string
	other  PauseEntry // that was there before

	tell func(PauseEntry, error)
	told string // last
}

// onlyOne fails if there is an older pause.
func (p *pause) onlyOne(ctx context.Context) error {
	all, err := Pauses(ctx, p.client, p.Lock)
	if err != nil {
		return err
	}
	if len(all) > 0 && all[0].Token < p.Token {
		first := &all[0]
		p.other = *first
		err := fmt.Errorf("lock %q: %w %v (token %d)", p.Lock, ErrPaused, &first.Pausing, first.Token)
		if !first.HasBegun() {
			err = fmt.Errorf("%w: not yet, that pause waits for who has the lock", err)
		}
		return err
	}
	return nil
}

// join puts the pause in line.
func (p *pause) join(ctx context.Context) error {
	resp, err := p.write(ctx, wire.Pause(p.place, p.Value(), p.Lease))
	if err != nil {
		return err
	}
	p.Token = resp.Header.Revision
	if there := wire.Got(resp, 0); there != nil { // an earlier try has created it
		p.Token = there.CreateRevision
	}
	return p.onlyOne(ctx)
}

// write makes a transaction that may be applied more than once, until its outcome is known.
func (p *pause) write(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	return p.lease.ReadUntil(ctx, lease.IsFinal, req)
}

// wait waits until everybody has gone who stood before the pause, and keeps its place meanwhile.
func (p *pause) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var meanwhile sync.WaitGroup
	defer meanwhile.Wait()
	defer cancel(nil)
	meanwhile.Go(func() { cancel(p.renew(ctx)) })
	meanwhile.Go(func() { cancel(p.awaitEnd(ctx)) })
	for {
		var before *mvccpb.KeyValue
		err := p.late(func() (err error) {
			before, err = p.before(ctx)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, ErrResumed), retry.IsRefused(err):
			return err
		case err == nil && before == nil:
			if p.told == "away" {
				p.say(p.PauseEntry, nil)
			}
			return p.late(func() error { return p.begin(ctx) })
		case err == nil:
			p.say(p.PauseEntry, nil)
			looking, stop := context.WithTimeout(ctx, lookAgain)
			err = line.AwaitGone(looking, p.client, before)
			stop()
		case !errors.Is(err, line.ErrChanges):
			p.say(p.PauseEntry, err)
		}
		if err != nil {
			retry.Sleep(ctx, retry.PauseMax)
		}
	}
}

// errSilent says that etcd has said nothing.
var errSilent = fmt.Errorf("nothing for %v", silence)

// late asks etcd for something, and tells if that takes long.
func (p *pause) late(ask func() error) error {
	entry := p.PauseEntry
	return retry.Late(silence, func() { p.say(entry, errSilent) }, ask)
}

// say tells that the pause waits, or, with an error, that etcd does not answer, each once until the
// other one is told.
func (p *pause) say(entry PauseEntry, err error) {
	what := "waits"
	if err != nil {
		what = "away"
	}
	if p.tell != nil && what != p.told {
		p.told = what
		p.tell(entry, err)
	}
}

// renew keeps the lease until ctx is done, or says why it cannot.
func (p *pause) renew(ctx context.Context) error {
	for retry.Sleep(ctx, p.lease.TTL()/3) {
		_, err := p.lease.Renew(ctx, func(ctx context.Context) (*pb.TxnResponse, error) { return p.write(ctx, wire.KeyRead(p.place)) })
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// awaitEnd waits until somebody has ended the pause.
func (p *pause) awaitEnd(ctx context.Context) error {
	for {
		err := line.AwaitGone(ctx, p.client, &mvccpb.KeyValue{Key: []byte(p.place), CreateRevision: p.Token})
		switch {
		case err == nil:
			return ErrResumed
		case errors.Is(err, line.ErrEnded):
			return err
		case !retry.Sleep(ctx, retry.PauseMax):
			return context.Cause(ctx)
		}
	}
}

// before returns what there is of somebody who came before, at one moment: the newest place, or a
// slot, or K. Nothing like that comes back once it is gone, as the pause has its place.
func (p *pause) before(ctx context.Context) (kv *mvccpb.KeyValue, err error) {
	prefix := wire.Prefix(p.Lock)
	k, below, err := line.Keys(ctx, p.client, p.Lock, prefix, clientv3.GetPrefixRangeEnd(prefix))
	if err != nil {
		return nil, err
	}
	places := wire.Places(p.Lock, below)
	own := slices.IndexFunc(places, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == p.place && kv.CreateRevision == p.Token })
	if own < 0 {
		return nil, ErrResumed
	}
	if own > 0 {
		return places[own-1], nil
	}
	for _, kv := range below {
		if _, slots := wire.SlotOf(p.Lock, string(kv.Key)); slots > 0 {
			return kv, nil
		}
	}
	if len(k) > 0 {
		return k[0], nil
	}
	return nil, nil
}

// begin lets the length of the pause count from now, and writes until when it lasts.
func (p *pause) begin(ctx context.Context) error {
	p.Until = time.Now().UTC().Add(p.lease.TTL())
	value := p.Value()
	resp, err := p.lease.Renew(ctx, func(ctx context.Context) (*pb.TxnResponse, error) {
		return p.write(ctx, wire.Break(p.place, value, p.Token))
	})
	switch {
	case errors.Is(err, lease.ErrGone):
		return ErrResumed
	case err != nil:
		return err
	}
	// Refused, it may have been written before.
	if there := wire.Got(resp, 0); !resp.Succeeded && (there == nil || there.CreateRevision != p.Token || string(there.Value) != value) {
		return ErrResumed
	}
	return nil
}

// giveBack revokes a lease, also if ctx is done.
func (p *pause) giveBack(ctx context.Context, id clientv3.LeaseID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
	defer cancel()
	return lease.Revoke(ctx, p.client, id, time.Second)
}

// Pauses returns the pauses of a lock, the first one first: at most one of them keeps everybody
// out, and there is rarely another. It blocks until etcd answers, or ctx is done. It needs
// permission to read the key and all below key/.
func Pauses(ctx context.Context, client *clientv3.Client, lock string) (all []PauseEntry, err error) {
	end, _ := wire.LinkedRange(lock)
	_, below, err := line.Keys(ctx, client, lock, wire.Prefix(lock), end)
	if err != nil {
		return nil, fmt.Errorf("looking for pauses of lock %q: %w", lock, err)
	}
	for _, place := range wire.Places(lock, below) {
		if p := line.PauseOf(lock, place); p != nil {
			all = append(all, PauseEntry{Pausing: *p, Lock: lock, Token: place.CreateRevision, Lease: clientv3.LeaseID(place.Lease)})
		}
	}
	return all, nil
}

// Resume ends the pause of a lock that has a token, also one that waits: the next in line may take
// the lock at once. It compares the token when it takes the place of the pause away, so no other
// pause is hit, and never a holder. It blocks until etcd answers, or ctx is done.
//
// It fails with ErrNotPaused if no pause has that token any more, with what etcd refuses, and with
// ErrUnknownOutcome if etcd did not answer. The same call may be made again.
func Resume(ctx context.Context, client *clientv3.Client, lock string, token int64) (PauseEntry, error) {
	find := func() (PauseEntry, error) {
		all, err := Pauses(ctx, client, lock)
		i := slices.IndexFunc(all, func(p PauseEntry) bool { return p.Token == token })
		switch {
		case err != nil:
			return PauseEntry{}, err
		case i < 0:
			return PauseEntry{}, fmt.Errorf("lock %q, token %d: %w", lock, token, ErrNotPaused)
		}
		return all[i], nil
	}
	p, err := until(ctx, client, lock, find, ErrNotPaused, func(p *PauseEntry) (*pb.TxnRequest, error) {
		return wire.Resume(wire.MutexPlace(lock, p.Lease), p.Token), nil
	})
	if err == nil {
		p.endLease(ctx, client)
	}
	return p, err
}

// endLease revokes the lease of a pause that is over, unless something else hangs on it. If that
// fails, the lease ends by itself.
func (p PauseEntry) endLease(ctx context.Context, client *clientv3.Client) {
	place := wire.MutexPlace(p.Lock, p.Lease)
	left, err := client.TimeToLive(ctx, p.Lease, clientv3.WithAttachedKeys())
	if err == nil && !slices.ContainsFunc(left.Keys, func(key []byte) bool { return string(key) != place }) {
		client.Revoke(ctx, p.Lease)
	}
}
