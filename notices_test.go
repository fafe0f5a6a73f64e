package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// blocking is a handler of messages that does not return from what it is asked.
type blocking struct {
	slog.Handler
	block func()
}

// Enabled is that of a slog.Handler, as is Handle.
func (b blocking) Enabled(context.Context, slog.Level) bool {
	b.block()
	return true
}

func (b blocking) Handle(context.Context, slog.Record) error {
	b.block()
	return nil
}

// blocker returns a function that blocks until the test is over.
func blocker(t *testing.T) (block func()) {
	over, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	return func() { <-over.Done() }
}

// TestUsersFunctionsBlock: a logger, an OnRenew or an OnWait that does not return suspends neither
// what waits for the lock nor renewals nor the loss nor the release.
func TestUsersFunctionsBlock(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := s.Client(t)
	link, behind := s.Linked(t)
	inBoth(t, behind, "/blocks", 10*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		defer link.Restore()
		block := blocker(t)
		log := slog.New(blocking{slog.DiscardHandler, block})
		l.Session().RefreshInterval = 100 * time.Millisecond
		l.Session().Logger = log
		l.Logger, l.OnRenew, l.OnWait = log, block, block
		holder := newHolder(t, client, "/blocks", "holder")
		w := startLock(t, l)
		awaitKeys(t, client, "/blocks/", 2)
		first := placeOf(t, client, "/blocks", l.ID()).key
		must(t)(client.Delete(etcdtest.Context(t), first))
		await(t, "another place", func() (bool, any) {
			places := etcdtest.Keys(t, client, "/blocks/")
			return len(places) == 2 && placeOf(t, client, "/blocks", l.ID()).key != first, len(places)
		})
		mustUnlock(t, holder)
		w.mustGet(t)
		awaitRenewals(t, l, w.held, 2)
		mustUnlock(t, l)
		held := mustLock(t, l)
		link.Silence()
		if lost := awaitLoss(t, held); lost.Reason != etcdlock.Unrenewed {
			t.Error(lost)
		}
		<-held.Expired()
		l.Unlock(ended())
	})
}

// TestLateRenewal: while a lock is held, and while it is waited for, the logger is told once that
// its lease is not renewed, and why, and once that it is again.
func TestLateRenewal(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	own := newLock(t, behind, "/late", "me")
	for _, l := range []*etcdlock.Lock{own, lockIn(t, newSession(t, behind), "/late", "me")} {
		defer link.Restore()
		l.Session().TTL, l.Session().RefreshInterval = 10*time.Second, 100*time.Millisecond
		told := make(chan string, 100)
		log := slog.New(slog.NewTextHandler(writer(func(line string) {
			if strings.Contains(line, "level=WARN") {
				told <- line
			}
		}), nil))
		waits := make(chan struct{}, 10)
		l.Logger, l.Session().Logger, l.OnWait = log, log, func() { waits <- struct{}{} }
		expect := func(says string) {
			t.Helper()
			if line := <-told; !strings.Contains(line, says) {
				t.Errorf("told is %q, not %q", line, says)
			}
		}
		holder := newHolder(t, s.Client(t), "/late", "holder")
		w := startLock(t, l)
		<-waits
		outage := func() {
			link.Silence()
			expect(`msg="the lease is not renewed yet" lease=`)
			link.Restore()
			expect("the lease is renewed again")
		}
		outage()
		mustUnlock(t, holder)
		w.mustGet(t)
		outage()
		awaitRenewals(t, l, w.held, 3)
		mustUnlock(t, l)
		if len(told) > 0 {
			t.Errorf("told as well: %s", <-told)
		}
	}
}

// TestTooLateRenewal: once the grace has begun, and the lock is given up, the logger is not told
// that the lease is not renewed yet, nor that it is again.
func TestTooLateRenewal(t *testing.T) {
	s := etcdtest.Start(t)
	for name, timing := range map[string][3]time.Duration{ // TTL, grace and refresh interval
		"told before the grace": {6 * time.Second, 3 * time.Second, 500 * time.Millisecond},
		"late only in it":       {2 * time.Second, time.Second, 620 * time.Millisecond},
	} {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, shared %v", name, shared), func(t *testing.T) {
				t.Parallel()
				link, behind := s.Linked(t)
				defer link.Restore()
				l := newLock(t, behind, "/"+name, "me")
				if shared {
					l = lockIn(t, newSession(t, behind), "/shared "+name, "me")
				}
				l.Session().TTL, l.Session().Grace, l.Session().RefreshInterval = timing[0], timing[1], timing[2]
				checkTooLate(t, l, link, timing[1])
			})
		}
	}
}

// checkTooLate has a lock lost in an outage that ends before its lease does.
func checkTooLate(t *testing.T, l *etcdlock.Lock, link *etcdtest.Link, grace time.Duration) {
	told, renewed := make(chan string, 10_000), make(chan struct{}, 10_000)
	log := slog.New(slog.NewTextHandler(writer(func(line string) { told <- line }), &slog.HandlerOptions{Level: slog.LevelDebug}))
	l.Logger, l.Session().Logger, l.OnRenew = log, log, func() { renewed <- struct{}{} }
	held := mustLock(t, l)
	select {
	case <-renewed: // the first one comes sooner than the others
	case <-held.Done():
	}
	link.Silence()
	awaitLoss(t, held)
	for len(told) > 0 {
		line := <-told
		_, after, _ := strings.Cut(line, "valid_for=")
		valid, _, _ := strings.Cut(after, " ")
		if left, err := time.ParseDuration(valid); err == nil && strings.Contains(line, "not renewed yet") && left <= grace {
			t.Errorf("told too late: %s", line)
		}
	}
	time.Sleep(200 * time.Millisecond)
	link.Restore()
	for again := false; !again; {
		select {
		case line := <-told:
			again = strings.Contains(line, "lease renewed")
			if strings.Contains(line, "level=WARN") {
				t.Errorf("told as well: %s", line)
			}
		case <-held.Expired(): // on a slow machine
			again = true
		}
	}
	l.Unlock(etcdtest.Context(t))
}

// TestRunOutIsNotDeleted: a place that went with its lease, while etcd stood still, was deleted by
// nobody.
func TestRunOutIsNotDeleted(t *testing.T) {
	t.Parallel()
	s := etcdtest.StartProcess(t)
	l := newLock(t, s.Client(t), "/run-out", "me")
	l.Session().TTL = 2 * time.Second
	told, waits := make(chan string, 100), make(chan struct{}, 10)
	l.OnWait = func() { waits <- struct{}{} }
	l.Logger = slog.New(slog.NewTextHandler(writer(func(line string) {
		if strings.Contains(line, "place in line lost") {
			told <- line
		}
	}), nil))
	holder := newHolder(t, s.Client(t), "/run-out", "holder")
	w := startLock(t, l)
	<-waits
	s.Stop()
	time.Sleep(4 * time.Second) // longer than the TTL
	s.Cont()
	if line := <-told; strings.Contains(line, "deleted from outside") {
		t.Error(line)
	}
	holder.Unlock(etcdtest.Context(t))
	w.mustGet(t)
	mustUnlock(t, l)
}

// A writer is told what is written.
type writer func(string)

// Write is that of an io.Writer.
func (w writer) Write(p []byte) (int, error) { w(string(p)); return len(p), nil }

// TestLoggerBlocksWithoutSpace: a logger that does not return from being told that etcd has no
// space does not keep Lock from returning when its context ends.
func TestLoggerBlocksWithoutSpace(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	inBoth(t, client, "/full", ttl, func(t *testing.T, l *etcdlock.Lock) {
		block, told := blocker(t), make(chan struct{}, 1)
		l.Logger = onMessage("etcd has no space, waiting until it has", func() {
			told <- struct{}{}
			block()
		})
		holder := newHolder(t, client, "/full", "holder")
		w := queue(t, l)
		s.Alarm(t, true)
		defer s.Alarm(t, false)
		mustUnlock(t, holder)
		<-told
		w.mustLeave(t)
	})
}

// TestLoggerOfASetBlocks: a set that loses a lock while it waits for the next begins again, also if
// its logger does not return.
func TestLoggerOfASetBlocks(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	holder := newHolder(t, client, "/blocks/b", "holder")
	set := setIn(t, newSession(t, client), "me", "/blocks/a", "/blocks/b")
	set.Logger = slog.New(blocking{slog.DiscardHandler, blocker(t)})
	got := inBackground(func() error {
		_, err := set.Lock(etcdtest.Context(t))
		return err
	})
	awaitKeys(t, client, "/blocks/b/", 2)
	first := placeOf(t, client, "/blocks/a", "me").key
	must(t)(client.Delete(etcdtest.Context(t), first))
	await(t, "the set to begin again", func() (bool, any) {
		places := etcdtest.Keys(t, client, "/blocks/a/")
		return len(places) == 1 && string(places[0].Key) != first, len(places)
	})
	mustUnlock(t, holder)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// TestUnlockInOnRenew: the user's functions may call the lock's methods.
func TestUnlockInOnRenew(t *testing.T) {
	s := etcdtest.Start(t)
	inBoth(t, s.Client(t), "/calls", ttl, func(t *testing.T, l *etcdlock.Lock) {
		unlocked := make(chan error, 1)
		var once sync.Once
		l.Session().RefreshInterval = 50 * time.Millisecond
		l.OnRenew = func() { once.Do(func() { unlocked <- l.Unlock(context.Background()) }) }
		held := mustLock(t, l)
		// A renewal may come before this one, and OnRenew's Unlock with it.
		if err := held.Refresh(etcdtest.Context(t)); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Fatal(err)
		}
		if err := <-unlocked; err != nil {
			t.Error(err)
		}
	})
}
