package etcdlock_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A stuck logger blocks on whatever is written to it, once it is told to, until the test is over.
type stuck struct {
	on   atomic.Bool
	over context.Context
}

func (*stuck) Enabled(context.Context, slog.Level) bool { return true }
func (s *stuck) WithAttrs([]slog.Attr) slog.Handler     { return s }
func (s *stuck) WithGroup(string) slog.Handler          { return s }
func (s *stuck) Handle(context.Context, slog.Record) error {
	if s.on.Load() {
		<-s.over.Done()
	}
	return nil
}

// TestUsersFunctionsBlock: a logger, an OnRenew or an OnWait that does not return suspends neither
// renewals nor the loss nor the release.
func TestUsersFunctionsBlock(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := linked(t, s)
	inBoth(t, behind, "/blocks", 4*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		defer link.Restore()
		over, end := context.WithCancel(context.Background())
		defer end()
		log := &stuck{over: over}
		block := func() { <-over.Done() }
		l.Session().RefreshInterval = 100 * time.Millisecond
		l.Session().Logger = slog.New(log)
		l.Logger, l.OnRenew, l.OnWait = slog.New(log), block, block
		holder := newLock(t, s.Client(t), "/blocks", "holder")
		mustLock(t, holder)
		got := make(chan grip, 1)
		go func() { got <- mustLock(t, l) }()
		awaitInLine(t, s.Client(t), "/blocks", 2)
		mustUnlock(t, holder)
		held := <-got
		log.on.Store(true)
		renewed(t, l, held, 2)
		mustUnlock(t, l)
		log.on.Store(false)
		held = mustLock(t, l)
		log.on.Store(true)
		link.Silence()
		if lost := causeOf(t, held); lost.Reason != etcdlock.Unrenewed {
			t.Error(lost)
		}
		<-held.Expired()
		l.Unlock(ended())
	})
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
		if err := held.Refresh(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-unlocked; err != nil {
			t.Error(err)
		}
	})
}
