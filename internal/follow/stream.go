package follow

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/expiry"
	"github.com/etcdlock/etcdlock/internal/line"
	"github.com/etcdlock/etcdlock/internal/onestream"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// The stream of events is asked for a sign of life now and then, and after some time without any
// etcd counts as away. Then there is another stream: one that has begun before etcd was killed, and
// came back without its data, was seen to be silent for good. The next one may be silent for twice
// as long, up to the limit: etcd gives no sign while it looks for what a stream has missed.
const (
	askEvery    = 2 * time.Second
	silence     = 3 * askEvery
	mostSilence = 16 * silence
)

// A Watch says what is followed.
type Watch struct {
	Client    *clientv3.Client
	From, End string                 // a range of keys
	IsAsked   func(lock string) bool // for a lock that has something there
}

var (
	errStopped = errors.New("nobody wants to know more")
	errHistory = errors.New("the history of etcd is not what it was")
	errSilent  = errors.New("the stream of events is silent")
)

// A follower is a Watch that goes on.
type follower struct {
	Watch
	yield    func(Change) bool
	leases   *expiry.Leases
	locks    map[string]*lock
	revision int64 // all up to this was told
	began    bool
	proof    proof
	heard    time.Time
	patience time.Duration // with the silence of a stream
	away     bool
}

// Run tells what happens, until yield returns false, ctx is done, or etcd refuses. It returns nil
// only if yield has returned false. It goes on by itself after all else: nothing is missed, and
// nothing told twice, as long as etcd has not compacted what happened meanwhile. If it has, the
// locks are read anew, and the difference is told.
func Run(ctx context.Context, w Watch, yield func(Change) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{Watch: w, yield: yield, leases: expiry.New(w.Client), locks: make(map[string]*lock), patience: silence}
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	asking.Go(func() { f.leases.Ask(ctx) })
	for {
		err := f.survey(ctx)
		if err == nil {
			err = f.follow(ctx)
		}
		switch {
		case err == errStopped:
			return nil
		case !errors.Is(err, rpctypes.ErrCompacted) && err != errHistory:
			return err
		}
	}
}

// tell tells one change.
func (f *follower) tell(c Change) error {
	if c.Time.IsZero() {
		c.Time = time.Now()
	}
	if !f.yield(c) {
		return errStopped
	}
	return nil
}

// isFinal reports whether an error is the last one.
func isFinal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || err == errStopped || err == errHistory || err == retry.ErrClientClosed ||
		errors.Is(err, rpctypes.ErrCompacted) || retry.IsDenied(err)
}

// again waits a little after an error, and returns it if it is final. That a stream has broken does
// not say that etcd is away. Only another history has a revision before it that was told of.
func (f *follower) again(ctx context.Context, err error) error {
	if open := retry.CheckOpen(f.Client); open != nil {
		err = open
	}
	if errors.Is(err, rpctypes.ErrFutureRev) {
		err = errHistory
	}
	if !isFinal(ctx, err) && !f.away && err != onestream.ErrBroken {
		f.away = true
		if stop := f.tell(Change{Kind: Away, Revision: f.revision, Err: err}); stop != nil {
			return stop
		}
	}
	switch {
	case ctx.Err() == nil && isFinal(ctx, err):
		return err
	case !retry.Sleep(ctx, retry.PauseRefused):
		return context.Cause(ctx)
	}
	return nil
}

// survey reads all locks, and tells how they differ from what was known. The first time nothing is
// known, and nothing of that is told.
func (f *follower) survey(ctx context.Context) error {
	var begun time.Time
	find := func() ([]line.Found, int64, error) {
		begun = time.Now()
		if f.began {
			return f.find(ctx, 0)
		}
		return line.Find(ctx, f.Client, f.IsAsked, f.From, f.End, 0)
	}
	all, revision, err := find()
	for err != nil {
		if !f.began {
			return err
		}
		if err := f.again(ctx, err); err != nil {
			return err
		}
		all, revision, err = find()
	}
	c := Change{Kind: Began, Revision: revision}
	if f.began {
		c.Kind, c.Since = Missed, f.revision
	}
	if err := f.tellBack(); err != nil {
		return err
	}
	f.revision = revision
	if err := f.tell(c); err != nil {
		return err
	}
	found := make(map[string]line.Found)
	for _, of := range all {
		found[of.Lock] = of
	}
	for name := range f.locks {
		if _, there := found[name]; !there {
			found[name] = line.Found{Lock: name}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if err := f.resync(ctx, found[name], revision); err != nil {
			return err
		}
	}
	f.began = true
	f.proof = proof{at: begun} // who is told of it may have taken long
	return nil
}

// resync makes what is known of a lock what was read at a revision.
func (f *follower) resync(ctx context.Context, is line.Found, revision int64) error {
	l := f.lock(is.Lock)
	keys := []written{{key: is.Lock}}
	if len(is.K) > 0 {
		keys[0].kv = is.K[0]
	}
	there := make(map[string]bool)
	slices.SortFunc(is.Below, func(a, b *mvccpb.KeyValue) int { return int(a.CreateRevision - b.CreateRevision) })
	for _, kv := range is.Below {
		there[string(kv.Key)] = true
		keys = append(keys, written{string(kv.Key), kv})
	}
	for _, key := range l.names() {
		if !there[key] {
			keys = append(keys, written{key: key})
		}
	}
	changes := l.step(revision, keys)
	for i := range changes {
		changes[i].Resync = true
	}
	return f.tellAll(ctx, l, changes, time.Now())
}

// lock returns what is known of a lock, and takes note of it.
func (f *follower) lock(name string) *lock {
	if f.locks[name] == nil {
		f.locks[name] = newLock(name)
	}
	return f.locks[name]
}

// tellAll tells what has happened to a lock, unless that is what it began with, and forgets a lock
// that nobody uses.
func (f *follower) tellAll(ctx context.Context, l *lock, changes []Change, seen time.Time) error {
	if l.isUnused() {
		delete(f.locks, l.name)
	}
	for _, c := range changes {
		c.Time = seen
		switch c.Kind {
		case Passed:
			f.leases.Leave(c.From.Lease)
			f.leases.Use(c.Holder.Lease)
		case Acquired:
			f.leases.Use(c.Holder.Lease)
		case Released:
			if ended, known := f.leases.HasEnded(ctx, c.Holder.Lease, seen); ended {
				c.Kind = Lost
			} else {
				c.Unsure = !known
			}
			f.leases.Leave(c.Holder.Lease)
		}
		if !f.began {
			continue
		}
		if err := f.tell(c); err != nil {
			return err
		}
	}
	return nil
}

// follow tells what happens after what was told, until etcd has forgotten that.
func (f *follower) follow(ctx context.Context) error {
	for {
		err := f.stream(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) && len(f.proof.seen) > 0 {
			f.proof.seen = nil // what comes after may still be there
			continue
		}
		if err := f.again(ctx, err); err != nil {
			return err
		}
		for err := f.check(ctx); err != nil; err = f.check(ctx) {
			if err := f.again(ctx, err); err != nil {
				return err
			}
		}
	}
}

// get asks etcd for a key, and of one that does not answer nothing more than that.
func (f *follower) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	return f.Client.Get(ctx, key, opts...)
}

// find reads all locks as of a revision. A member that does not answer in time is not asked for
// longer at once: the next one to be asked may answer.
func (f *follower) find(ctx context.Context, at int64) ([]line.Found, int64, error) {
	for limit := silence; ; limit *= 2 {
		asking, cancel := context.WithTimeout(ctx, limit)
		all, revision, err := line.Find(asking, f.Client, f.IsAsked, f.From, f.End, at)
		late := asking.Err() != nil
		cancel()
		if err == nil || !late {
			return all, revision, err
		}
		if err := f.again(ctx, err); err != nil {
			return nil, 0, err
		}
	}
}

// check finds out whether etcd answers, and has gone back: then a watch would wait for what is to
// come.
func (f *follower) check(ctx context.Context) error {
	resp, err := f.get(ctx, f.From, clientv3.WithKeysOnly())
	if err == nil && resp.Header.Revision < f.revision {
		return errHistory
	}
	return err
}

// stream watches, and tells what happens, until the watch ends.
func (f *follower) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer cancel()
	first := f.proof.begin(f.revision)
	stream := onestream.Open(ctx, f.Client, f.From, clientv3.WithRange(f.End), clientv3.WithRev(first))
	defer stream.Close()
	tick, answers := time.NewTicker(askEvery), make(chan *pb.ResponseHeader)
	defer tick.Stop()
	var events clientv3.WatchChan
	f.heard = time.Now()
	shown := false // something but that it has begun, since it was asked for a sign
	for {
		select {
		case events = <-stream.Opened():
		case resp, open := <-events:
			if err := resp.Err(); err != nil || !open {
				return err
			}
			shown = shown || !resp.Created
			if err := f.hear(ctx, resp); err != nil {
				return err
			}
		case header := <-answers: // without a revision that the stream should have shown
			if header.Revision == f.revision && !f.proof.isMissing(f.revision) {
				if err := f.hear(ctx, clientv3.WatchResponse{Header: header}); err != nil {
					return err
				}
			}
		case <-tick.C:
			if stream.AskForSign(); !shown {
				beside.Go(func() { f.askBeside(ctx, answers) })
			}
			shown = false
			if err := f.tellSilence(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tellSilence tells that etcd is away if the stream has been silent, and returns errSilent if that
// is for too long.
func (f *follower) tellSilence() error {
	since := time.Since(f.heard)
	if !f.away && since >= silence {
		f.away = true
		if err := f.tell(Change{Kind: Away, Revision: f.revision}); err != nil {
			return err
		}
	}
	if since < f.patience {
		return nil
	}
	f.patience = min(2*f.patience, mostSilence)
	return errSilent
}

// tellBack tells that etcd answers again, if it was away.
func (f *follower) tellBack() error {
	if !f.away {
		return nil
	}
	f.away = false
	return f.tell(Change{Kind: Back, Revision: f.revision})
}

// askBeside asks etcd beside a stream that shows nothing: of one that begins with a revision to
// come etcd shows nothing before. Where one member does not answer, the next question goes to
// another one.
func (f *follower) askBeside(ctx context.Context, answers chan<- *pb.ResponseHeader) {
	resp, err := f.get(ctx, f.From, clientv3.WithKeysOnly())
	if err != nil {
		return
	}
	select {
	case answers <- resp.Header:
	case <-ctx.Done():
	}
}

// hear takes what the stream has brought.
func (f *follower) hear(ctx context.Context, resp clientv3.WatchResponse) error {
	seen := time.Now()
	if resp.Header.Revision < f.revision { // it may be a member that lags behind
		if err := f.check(ctx); err != nil {
			return err
		}
	}
	if resp.Created && f.proof.isDue() {
		if err := f.prove(ctx); err != nil {
			return err
		}
	}
	if err := f.tellBack(); err != nil {
		return err
	}
	for first, rest := 0, resp.Events; first < len(rest); {
		revision, last := rest[first].Kv.ModRevision, first
		for last < len(rest) && rest[last].Kv.ModRevision == revision {
			last++
		}
		if err := f.take(ctx, revision, rest[first:last], seen); err != nil {
			return err
		}
		first = last
	}
	if !resp.Created {
		f.patience = silence
	}
	if resp.IsProgressNotify() {
		if f.proof.isMissing(resp.Header.Revision) {
			return errHistory
		}
		f.revision = max(f.revision, resp.Header.Revision)
	}
	f.heard = time.Now() // whoever is told may take long
	return nil
}

// take tells what one revision has done.
func (f *follower) take(ctx context.Context, revision int64, events []*clientv3.Event, seen time.Time) error {
	order, keys := f.sort(events)
	if isSeen, ok := f.proof.compare(revision, events, keys); isSeen || !ok {
		return errUnless(ok)
	}
	if revision <= f.revision {
		return errUnless(len(order) == 0)
	}
	for _, name := range order { // all that can fail, before anything is told
		if err := f.meet(ctx, name, keys[name], revision); err != nil {
			return err
		}
	}
	f.revision = revision
	f.proof.note(revision, keys)
	for _, name := range order {
		l := f.lock(name)
		if l.revision >= revision {
			continue
		}
		if err := f.tellAll(ctx, l, l.step(revision, keys[name]), seen); err != nil {
			return err
		}
	}
	return nil
}

// sort returns what was done to each lock, and the locks in the order in which etcd did it. Of all
// other keys nothing is kept. What is first done to a new lock may be to put K.
func (f *follower) sort(events []*clientv3.Event) (order []string, keys map[string][]written) {
	keys = make(map[string][]written)
	for _, e := range events {
		name, _, ok := wire.LockOf(string(e.Kv.Key))
		if !ok || !f.IsAsked(name) {
			continue
		}
		if _, seen := keys[name]; !seen && (f.locks[name] != nil || e.Type == mvccpb.Event_PUT && isOf(name, e.Kv)) {
			keys[name], order = nil, append(order, name)
		}
	}
	note := func(lock string, e *clientv3.Event) {
		w := written{key: string(e.Kv.Key)}
		if e.Type == mvccpb.Event_PUT {
			w.kv = e.Kv
		}
		keys[lock] = append(keys[lock], w)
	}
	for _, e := range events {
		key := string(e.Kv.Key)
		if _, is := keys[key]; !is && f.locks[key] != nil {
			keys[key], order = nil, append(order, key)
		}
		if _, is := keys[key]; is {
			note(key, e)
		}
		if name, _, ok := wire.LockOf(key); ok {
			if _, is := keys[name]; is {
				note(name, e)
			}
		}
	}
	return order, keys
}

// meet reads K of a lock that was not known before, unless the same revision has written it.
// Somebody may have put K by hand before anybody came to wait.
func (f *follower) meet(ctx context.Context, name string, keys []written, revision int64) error {
	if f.locks[name] != nil || slices.ContainsFunc(keys, func(w written) bool { return w.key == name }) {
		return nil
	}
	for {
		resp, err := f.get(ctx, name, clientv3.WithRev(revision))
		if err == nil {
			if len(resp.Kvs) > 0 {
				f.lock(name).key = resp.Kvs[0]
			}
			return f.tellBack()
		}
		if err := f.again(ctx, err); err != nil {
			return err
		}
	}
}
