package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"

	"github.com/etcdlock/etcdlock"
)

// The sides that share locks.
var (
	oursShared = library{"etcdlock, shared", openShared}
	readers    = library{"RWMutex", openReaders}
)

// sharedSession is one whose contenders share their locks.
type sharedSession struct{ ourSession }

func openShared(ctx context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := openOurs(ctx, client, ttl)
	if err != nil {
		return nil, err
	}
	return sharedSession{s.(ourSession)}, nil
}

func (s sharedSession) contender(_ context.Context, key string) (contender, error) {
	return s.contenderAs(etcdlock.Shared, key)
}

// readerSession is one whose contenders read under the RWMutex of etcd's recipes, which takes no
// context.
type readerSession struct{ mutexSession }

func openReaders(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := newMutexSession(client, ttl)
	return readerSession{mutexSession{s}}, err
}

func (s readerSession) contender(_ context.Context, key string) (contender, error) {
	m := recipe.NewRWMutex(s.Session, key)
	return contender{
		lock:   func(context.Context) error { return m.RLock() },
		unlock: func(context.Context) error { return m.RUnlock() },
	}, nil
}

// writer returns what locks a key against those who share it.
func (s sharedSession) writer(ctx context.Context, key string) (contender, error) {
	return s.ourSession.contender(ctx, key)
}

func (s readerSession) writer(_ context.Context, key string) (contender, error) {
	m := recipe.NewRWMutex(s.Session, key)
	return contender{
		lock:   func(context.Context) error { return m.Lock() },
		unlock: func(context.Context) error { return m.Unlock() },
	}, nil
}

// writer returns another contender: for them there is no difference.
func (s ourSession) writer(ctx context.Context, key string) (contender, error) {
	return s.contender(ctx, key)
}

// besideOthers returns the locks with their unlocks per second of a contender that shares the lock
// with others, who hold it all the time.
func besideOthers(ctx context.Context, e etcd, n, others int) (_ figures, err error) {
	c := &crowd{}
	defer func() { err = errors.Join(err, c.close()) }()
	key := newKey()
	s, err := c.session(ctx, e, oursShared)
	if err != nil {
		return nil, err
	}
	for range others {
		one, err := s.contender(ctx, key)
		if err != nil {
			return nil, err
		}
		if err := one.lock(ctx); err != nil {
			return nil, err
		}
	}
	own, err := c.session(ctx, e, oursShared)
	if err != nil {
		return nil, err
	}
	one, err := own.contender(ctx, key)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for range n {
		if err := errors.Join(one.lock(ctx), one.unlock(ctx)); err != nil {
			return nil, err
		}
	}
	return figures{"rate": {float64(n) / time.Since(start).Seconds()}}, nil
}

// wakes measures how long it takes from the release of a holder until all of those behind it have
// had the lock, who give it back at once.
func wakes(ctx context.Context, e etcd, lib library, waiters, often int) (_ figures, err error) {
	c := &crowd{}
	defer func() { err = errors.Join(err, c.close()) }()
	key := newKey()
	type writing interface {
		writer(ctx context.Context, key string) (contender, error)
	}
	first, err := c.session(ctx, e, lib)
	if err != nil {
		return nil, err
	}
	holder, err := first.(writing).writer(ctx, key)
	if err != nil {
		return nil, err
	}
	var behind []contender
	var from session
	for i := range waiters {
		if i%(waiters/sessions) == 0 {
			if from, err = c.session(ctx, e, lib); err != nil {
				return nil, err
			}
		}
		one, err := from.contender(ctx, key)
		if err != nil {
			return nil, err
		}
		behind = append(behind, one)
	}
	var all []float64
	for range often {
		took, err := wake(ctx, c.clients[0], key, holder, behind)
		if err != nil {
			return nil, err
		}
		all = append(all, milliseconds(took))
	}
	f := spread(all)
	const allowed = 10 // ms that 100 may take beyond a few hand-overs
	f["beyond"] = []float64{max(quantile(all, 0.5)-allowed, 0)}
	return f, nil
}

func wake(ctx context.Context, client *clientv3.Client, key string, holder contender, behind []contender) (time.Duration, error) {
	if err := holder.lock(ctx); err != nil {
		return 0, err
	}
	var waiting sync.WaitGroup
	last := make(chan time.Time, len(behind))
	failed := make(chan error, len(behind))
	for _, one := range behind {
		waiting.Go(func() {
			err := one.lock(ctx)
			last <- time.Now()
			failed <- errors.Join(err, one.unlock(ctx))
		})
	}
	for there := int64(0); there < int64(len(behind)); {
		resp, err := client.Get(ctx, key+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return 0, err
		}
		there = resp.Count - 1 // without the holder's
	}
	const settled = 50 * time.Millisecond // their watches are there
	if !sleep(ctx, settled) {
		return 0, context.Cause(ctx)
	}
	start := time.Now()
	err := holder.unlock(ctx)
	waiting.Wait()
	end := start
	for range behind {
		if at := <-last; at.After(end) {
			end = at
		}
		err = errors.Join(err, <-failed)
	}
	return end.Sub(start), err
}

// share compares those who share a lock with those who have it alone.
func (x extent) share(a arena) measurement {
	const name = "shared lock and unlock, uncontended"
	inside := fmt.Sprintf("etcdlock, shared by %s", thousands(x.sharing))
	turn := func(ctx context.Context, e etcd, lib library) (figures, error) {
		return uncontended(ctx, e, lib, x.alone)
	}
	sides := append(a.libraries(oursShared, ours, turn), a.libraries(oursShared, readers, turn)[1],
		side{inside, a.in(func(ctx context.Context, e etcd) (figures, error) {
			return besideOthers(ctx, e, x.alone, x.sharing)
		})})
	return measurement{a.prefix + name, sides, []row{
		{name, "/s", "rate", oursShared.name, readers.name, target{}},
		{"the same against a lock that is not shared", "/s", "rate", oursShared.name, ours.name, atLeast(0.9)},
		{fmt.Sprintf("the same with %s inside", thousands(x.sharing)), "/s", "rate", inside, ours.name, atLeast(0.9)},
	}}
}

// wake compares how those who share a lock are woken with a chain, and with one hand-over.
func (x extent) wake(a arena) measurement {
	const handOver = "one hand-over"
	name := fmt.Sprintf("%d who share the lock have it after a holder", x.woken)
	turn := func(ctx context.Context, e etcd, lib library) (figures, error) {
		return wakes(ctx, e, lib, x.woken, x.wakes)
	}
	sides := append(a.libraries(oursShared, ours, turn), a.libraries(oursShared, readers, turn)[1],
		side{handOver, a.in(func(ctx context.Context, e etcd) (figures, error) {
			f, err := handOvers(ctx, e, ours, 2, max(x.twoTurns/5, 2), 20*time.Millisecond)
			if err == nil {
				f["beyond"] = f["p50"]
			}
			return f, err
		})})
	return measurement{a.prefix + name, sides, []row{
		{name + ", p50", "ms", "p50", oursShared.name, readers.name, target{}},
		{"the same against as many one after another", "ms", "p50", oursShared.name, ours.name, atMost(0.2)},
		{"the same less 10 ms, against one hand-over", "ms", "beyond", oursShared.name, handOver, atMost(3)},
	}}
}
