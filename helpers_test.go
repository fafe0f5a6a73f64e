package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// ttl is long enough that no stall of the machine that runs the tests ends it.
const ttl = 60 * time.Second

// answered is how long etcd may take to answer one of a crowd on a slow machine, in tests that are
// not about that time.
const answered = time.Minute

// newLock returns a lock with a session of its own, both closed when the test ends. It is to be
// held in the mode, if there is one.
func newLock(t testing.TB, client *clientv3.Client, key, id string, mode ...etcdlock.Mode) *etcdlock.Lock {
	t.Helper()
	l, err := etcdlock.New(client, key, id, ttl)
	if err != nil {
		t.Fatal(err)
	}
	l.Session().ConnectTimeout = answered
	closeAtEnd(t, l.Close)
	return inMode(l, mode)
}

// inMode returns a lock in the mode, if there is one.
func inMode(l *etcdlock.Lock, mode []etcdlock.Mode) *etcdlock.Lock {
	for _, one := range mode {
		l.Mode = one
	}
	return l
}

// newSharer is newLock for a lock that is to be shared.
func newSharer(t testing.TB, client *clientv3.Client, key, id string) *etcdlock.Lock {
	t.Helper()
	return newLock(t, client, key, id, etcdlock.Shared)
}

// newSitter is newLock for one of a number of slots.
func newSitter(t testing.TB, client *clientv3.Client, key, id string, slots int) *etcdlock.Lock {
	t.Helper()
	return newLock(t, client, key, id, etcdlock.Slots(slots))
}

// newHolder is newLock for a lock that is held.
func newHolder(t testing.TB, client *clientv3.Client, key, id string) *etcdlock.Lock {
	t.Helper()
	l := newLock(t, client, key, id)
	mustLock(t, l)
	return l
}

// newSession returns a session that is closed when the test ends.
func newSession(t testing.TB, client *clientv3.Client) *etcdlock.Session {
	t.Helper()
	session, err := etcdlock.NewSession(client, ttl)
	if err != nil {
		t.Fatal(err)
	}
	session.ConnectTimeout = answered
	closeAtEnd(t, session.Close)
	return session
}

// closeAtEnd closes a lock or a session when the test ends, if etcd answers.
func closeAtEnd(t testing.TB, end func(context.Context) error) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		end(ctx)
	})
}

// lockIn returns a lock of a session, in the mode, if there is one.
func lockIn(t testing.TB, session *etcdlock.Session, key, id string, mode ...etcdlock.Mode) *etcdlock.Lock {
	t.Helper()
	l, err := session.NewLock(key, id)
	if err != nil {
		t.Fatal(err)
	}
	return inMode(l, mode)
}

// sharerIn is lockIn for a lock that is to be shared.
func sharerIn(t testing.TB, session *etcdlock.Session, key, id string) *etcdlock.Lock {
	t.Helper()
	return lockIn(t, session, key, id, etcdlock.Shared)
}

// sitterIn is lockIn for one of a number of slots.
func sitterIn(t testing.TB, session *etcdlock.Session, key, id string, slots int) *etcdlock.Lock {
	t.Helper()
	return lockIn(t, session, key, id, etcdlock.Slots(slots))
}

// locksIn returns n locks of a session.
func locksIn(t testing.TB, session *etcdlock.Session, prefix string, n int) (all []*etcdlock.Lock) {
	t.Helper()
	for i := range n {
		all = append(all, lockIn(t, session, fmt.Sprint(prefix, i), "me"))
	}
	return all
}

// setIn returns a set of a session.
func setIn(t testing.TB, session *etcdlock.Session, id string, keys ...string) *etcdlock.Set {
	t.Helper()
	set, err := session.NewSet(keys, id)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// sessionLock returns a session that has its lease, and a lock of it.
func sessionLock(t testing.TB, client *clientv3.Client, key string, ttl time.Duration) (*etcdlock.Session, *etcdlock.Lock) {
	t.Helper()
	session := newSession(t, client)
	session.TTL = ttl
	if err := session.Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	return session, lockIn(t, session, key, "me")
}

// inBoth runs a test with a lock of its own session, and with one of a session for several.
func inBoth(t *testing.T, client *clientv3.Client, key string, ttl time.Duration, test func(t *testing.T, l *etcdlock.Lock)) {
	t.Helper()
	t.Run("own session", func(t *testing.T) {
		l := newLock(t, client, key, "me")
		l.Session().TTL = ttl
		test(t, l)
	})
	t.Run("shared session", func(t *testing.T) {
		_, l := sessionLock(t, client, key, ttl)
		test(t, l)
	})
}

// A grip is a lock that is held, and the context of the work under it.
type grip struct {
	*etcdlock.Held
	context.Context
}

// gripOf completes what Lock returns.
func gripOf(held *etcdlock.Held, err error) (grip, error) {
	return grip{held, held.Context(context.Background())}, err
}

// mustLock acquires a lock.
func mustLock(t testing.TB, l *etcdlock.Lock) grip {
	t.Helper()
	held, err := gripOf(l.Lock(etcdtest.Context(t)))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// mustUnlock gives a lock back.
func mustUnlock(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	if err := l.Unlock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

// mustLockSet acquires a set.
func mustLockSet(t testing.TB, set *etcdlock.Set) *etcdlock.HeldSet {
	t.Helper()
	held, err := set.Lock(etcdtest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// atOnce calls something for all locks at once, and returns what each call came to.
func atOnce(all []*etcdlock.Lock, do func(l *etcdlock.Lock) error) []error {
	errs := make([]error, len(all))
	var calls sync.WaitGroup
	for i, l := range all {
		calls.Go(func() { errs[i] = do(l) })
	}
	calls.Wait()
	return errs
}

// lockAll acquires locks at once.
func lockAll(t testing.TB, all []*etcdlock.Lock) error {
	return errors.Join(atOnce(all, func(l *etcdlock.Lock) error { _, err := l.Lock(etcdtest.Context(t)); return err })...)
}

// unlockAll gives locks back at once.
func unlockAll(t testing.TB, all []*etcdlock.Lock) error {
	return errors.Join(atOnce(all, func(l *etcdlock.Lock) error { return l.Unlock(etcdtest.Context(t)) })...)
}

// fill has all slots of a lock taken.
func fill(t testing.TB, client *clientv3.Client, key string, slots int) (inside []grip) {
	t.Helper()
	for i := range slots {
		inside = append(inside, mustLock(t, newSitter(t, client, key, fmt.Sprint("inside ", i), slots)))
	}
	return inside
}

// lockMany acquires n locks of a session and returns them with their contexts.
func lockMany(t testing.TB, session *etcdlock.Session, n int) (locks []*etcdlock.Lock, held []grip) {
	t.Helper()
	locks, held = make([]*etcdlock.Lock, n), make([]grip, n)
	ctx := etcdtest.Context(t)
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := worker; i < n; i += 32 {
				l, err := session.NewLock(fmt.Sprintf("/many/%d", i), "me")
				if err == nil {
					locks[i] = l
					held[i], err = gripOf(l.Lock(ctx))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return locks, held
}

// A waiter is a Lock that is being acquired in the background.
type waiter struct {
	*etcdlock.Lock
	leave context.CancelFunc
	got   chan error    // receives what Lock returns
	held  grip          // set before got receives nil
	waits chan struct{} // receives when the lock stands in line; nil if queue has not made it
}

// startLock calls Lock in the background, until it returns or the test ends.
func startLock(t testing.TB, l *etcdlock.Lock) *waiter {
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	t.Cleanup(cancel)
	w := &waiter{Lock: l, leave: cancel, got: make(chan error, 1)}
	go func() {
		var err error
		w.held, err = gripOf(l.Lock(ctx))
		w.got <- err
	}()
	return w
}

// queue is startLock for a lock that others hold. It returns once the lock stands in line.
func queue(t testing.TB, l *etcdlock.Lock) *waiter {
	t.Helper()
	waits := make(chan struct{}, 8)
	l.OnWait = func() { waits <- struct{}{} }
	w := startLock(t, l)
	w.waits = waits
	w.mustWait(t)
	return w
}

// passedOn returns a lock that is held, and that the tail has named: it has waited for its turn.
func passedOn(t testing.TB, client *clientv3.Client, key string) *waiter {
	t.Helper()
	first := newHolder(t, client, key, "first")
	w := queue(t, newLock(t, client, key, "holder"))
	mustUnlock(t, first)
	w.mustGet(t)
	return w
}

// queueMany lets n locks of a session stand in line for a key, one after the other.
func queueMany(t testing.TB, session *etcdlock.Session, key string, n int) (all []*waiter) {
	t.Helper()
	for i := range n {
		all = append(all, queue(t, lockIn(t, session, key, fmt.Sprint(i))))
	}
	return all
}

// mustWait waits until the lock stands in line, the next time it does so.
func (w *waiter) mustWait(t testing.TB) {
	t.Helper()
	select {
	case <-w.waits:
	case err := <-w.got:
		t.Fatalf("does not wait: %v", err)
	}
}

// mustGet waits until the lock is acquired.
func (w *waiter) mustGet(t testing.TB) {
	t.Helper()
	if err := <-w.got; err != nil {
		t.Fatal(err)
	}
}

// mustNotGet checks that the lock, which others hold, is not acquired in a time that is long enough
// for a broken one. Nothing tells of what does not happen.
func (w *waiter) mustNotGet(t testing.TB, in time.Duration) {
	t.Helper()
	time.Sleep(in)
	select {
	case err := <-w.got:
		t.Fatalf("it has got a lock that is held: %v", err)
	default:
	}
}

// mustLeave gives up, and waits until Lock says so.
func (w *waiter) mustLeave(t testing.TB) {
	t.Helper()
	w.leave()
	if err := <-w.got; !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v", err)
	}
}

// takeTurns waits until each of the locks is acquired, in this order, and gives it back.
func takeTurns(t testing.TB, line ...*waiter) {
	t.Helper()
	for _, w := range line {
		w.mustGet(t)
		mustUnlock(t, w.Lock)
	}
}

// await waits until ok, and fails with what is the case now if it is not in time.
func await(t testing.TB, what string, is func() (ok bool, now any)) {
	t.Helper()
	etcdtest.Await(t, what, func(context.Context) error {
		if ok, now := is(); !ok {
			return fmt.Errorf("now it is %v", now)
		}
		return nil
	})
}

// awaitLoss waits until a lock is lost, and returns the loss.
func awaitLoss(t testing.TB, held context.Context) *etcdlock.LostError {
	t.Helper()
	select {
	case <-held.Done():
	case <-etcdtest.Context(t).Done():
		t.Fatal("the lock was never lost")
	}
	var lost *etcdlock.LostError
	if !errors.As(context.Cause(held), &lost) {
		t.Fatalf("held ended with %v", context.Cause(held))
	}
	return lost
}

// awaitRenewals waits until a lock has been renewed n times more, and fails if it is lost.
func awaitRenewals(t testing.TB, l *etcdlock.Lock, held context.Context, n int) {
	t.Helper()
	for range n {
		low := l.Holding().Remaining()
		await(t, "a renewal", func() (bool, any) {
			if held.Err() != nil {
				t.Fatalf("lost: %v", context.Cause(held))
			}
			now := l.Holding().Remaining()
			low = min(low, now)
			return now > low, now
		})
	}
}

// awaitWatches waits until the client of a lock watches so many keys at least.
func awaitWatches(t testing.TB, l *etcdlock.Lock, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d watches", n), func() (bool, any) { return l.Watches() >= n, l.Watches() })
}

// awaitNoWatch waits until the client of a lock has not asked to watch anything.
func awaitNoWatch(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	await(t, "all watches to end", func() (bool, any) { return l.Watched() == 0, l.Watched() })
}

// awaitNextKnown waits until a lock that is held, or waits, knows who is next in line.
func awaitNextKnown(t testing.TB, l *etcdlock.Lock) {
	t.Helper()
	await(t, "it to be known who is next", func() (bool, any) { return l.KnowsNext(), "unknown" })
}

// must fails the test if a call has failed: must(t)(client.Delete(ctx, key)).
func must(t testing.TB) func(result any, err error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// inBackground makes a call, and returns what receives its error.
func inBackground(call func() error) <-chan error {
	got := make(chan error, 1)
	go func() { got <- call() }()
	return got
}

// ended returns a context that is done.
func ended() context.Context {
	ctx, end := context.WithCancel(context.Background())
	end()
	return ctx
}

// onMessage returns a logger that calls do when it is given a message, any one if message is empty:
// that is how a test gets between two steps of a lock.
func onMessage(message string, do func()) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.MessageKey && (message == "" || message == a.Value.String()) {
				do()
			}
			return a
		},
	}))
}
