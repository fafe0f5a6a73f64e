package etcdlock_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestUsersFunctionsBlock: a logger, an OnRenew or an OnWait that does not return suspends neither
// renewals nor the loss nor the release.
func TestUsersFunctionsBlock(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	inBoth(t, behind, "/blocks", 4*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		defer link.Restore()
		over, end := context.WithCancel(context.Background())
		defer end()
		block := func() { <-over.Done() }
		var stuck atomic.Bool
		log := onMessage("", func() {
			if stuck.Load() {
				block()
			}
		})
		l.Session().RefreshInterval = 100 * time.Millisecond
		l.Session().Logger = log
		l.Logger, l.OnRenew, l.OnWait = log, block, block
		holder := newHolder(t, s.Client(t), "/blocks", "holder")
		w := startLock(t, l)
		awaitKeys(t, s.Client(t), "/blocks/", 2)
		mustUnlock(t, holder)
		w.mustGet(t)
		held := w.held
		stuck.Store(true)
		awaitRenewals(t, l, held, 2)
		mustUnlock(t, l)
		stuck.Store(false)
		held = mustLock(t, l)
		stuck.Store(true)
		link.Silence()
		if lost := awaitLoss(t, held); lost.Reason != etcdlock.Unrenewed {
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
		// A renewal may come before this one, and OnRenew's Unlock with it.
		if err := held.Refresh(etcdtest.Context(t)); err != nil && !errors.Is(err, etcdlock.ErrNotHeld) {
			t.Fatal(err)
		}
		if err := <-unlocked; err != nil {
			t.Error(err)
		}
	})
}
