package soak

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

const (
	// calm is how long after the last harm nothing is left of it: leases have run out.
	calm = ttl + 5*time.Second
	// gap is for how long a lock that is waited for may have no holder while all is well.
	gap = 3 * time.Second
	// pace is how often the machine is looked at, and slow what a look takes if it is too slow.
	pace, slow = 100 * time.Millisecond, 400 * time.Millisecond
)

// A health says since when nothing is done to etcd, and since when the machine keeps up.
type health struct {
	healing sync.Mutex
	harms   int // that are under way
	harmed  time.Time
	slowed  time.Time
	looked  time.Time // when the last look at the machine has begun
}

// harm does something to etcd.
func (h *health) harm(do func()) {
	note := func(more int) {
		h.healing.Lock()
		defer h.healing.Unlock()
		h.harms += more
		h.harmed = time.Now()
	}
	note(1)
	defer note(-1)
	do()
}

// isWell reports whether nothing was done to etcd for some time, and the machine has kept up for
// some other time.
func (h *health) isWell(etcd, machine time.Duration) bool {
	keepsUp := h.keepsUp(machine)
	h.healing.Lock()
	defer h.healing.Unlock()
	return keepsUp && h.harms == 0 && time.Since(h.harmed) > etcd
}

// keepsUp reports whether the machine has kept up for some time, also with etcd's work. One that
// does not is no reason to fail.
func (h *health) keepsUp(since time.Duration) bool {
	h.healing.Lock()
	defer h.healing.Unlock()
	return time.Since(h.slowed) > since && time.Since(h.looked) < pace+2*slow
}

func (h *health) look(slow bool) {
	h.healing.Lock()
	defer h.healing.Unlock()
	if h.looked = time.Now(); slow {
		h.slowed = h.looked
	}
}

// watch looks at the machine, and for locks that nobody has although they are waited for, until ctx
// is done.
func (s *soak) watch(ctx context.Context) {
	client := s.access.Client(s.t)
	for ctx.Err() == nil {
		begun := time.Now()
		time.Sleep(pace)
		// Not given up early: that would cost an etcd that is busy one login more each time.
		_, err := client.Put(ctx, "/pulse", "")
		isSlow := err != nil || time.Since(begun) > slow
		if isSlow {
			time.Sleep(time.Second)
		}
		s.look(isSlow)
		if s.end.Err() == nil && s.isWell(calm+gap, gap+time.Second) {
			s.looks.Add(1)
			s.findIdle()
		}
	}
}

// findIdle fails the test if a lock is given to nobody.
func (s *soak) findIdle() {
	for i := range keys {
		s.mu.Lock()
		since, n := s.idle[i], s.waiters[i]
		idle := !since.IsZero() && time.Since(since) > gap
		if idle {
			s.idle[i] = time.Now() // it is said once in a while
		}
		s.mu.Unlock()
		if idle {
			s.t.Errorf("%s is waited for by %d, and nobody has it for %v\n%s", key(i), n, time.Since(since), s.keys())
		}
	}
}

// wait takes note of a waiter that comes or goes.
func (s *soak) wait(i, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters[i] += more
	s.noteIdle(i)
}

// noteIdle takes note of whether somebody waits for a lock that nobody has. It is called with mu
// held.
func (s *soak) noteIdle(i int) {
	switch {
	case len(s.holders[i]) > 0 || s.waiters[i] == 0:
		s.idle[i] = time.Time{}
	case s.idle[i].IsZero():
		s.idle[i] = time.Now()
	}
}

// keep holds a lock all the time, so that it is renewed.
func (s *soak) keep(session *etcdlock.Session, key string) {
	l, err := session.NewLock(key, "kept")
	if err != nil {
		s.t.Error(err)
		return
	}
	for s.end.Err() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		held, err := l.Lock(ctx)
		late := ctx.Err() != nil
		cancel()
		if err != nil {
			if late && s.keepsUp(spell/2) {
				s.t.Errorf("nobody else wants %s: %v\n%s", key, err, s.keys())
			}
			time.Sleep(time.Second)
			continue
		}
		work := held.Context(s.end)
		<-work.Done()
		s.judge(context.Cause(work))
		held.Unlock(context.Background())
	}
}

// judge looks at how a holding has ended. While all is well nothing is lost because it could not be
// renewed.
func (s *soak) judge(err error) {
	var lost *etcdlock.LostError
	if !errors.As(err, &lost) {
		return
	}
	s.lost.Add(1)
	if lost.Reason == etcdlock.Unrenewed && s.isWell(calm, ttl) {
		s.t.Errorf("lost while all is well: %v", lost)
	}
}

// awaitNothing waits until nothing of the locks is left.
func (s *soak) awaitNothing() {
	client := s.access.Client(s.t)
	etcdtest.Await(s.t, "all keys to go", func(ctx context.Context) error {
		resp, err := client.Get(ctx, "/soak/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && resp.Count > 0 {
			err = fmt.Errorf("%d are left:\n%s", resp.Count, s.keys())
		}
		return err
	})
}
