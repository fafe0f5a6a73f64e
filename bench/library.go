package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock"
)

// ttl is what both sides ask for, and Mutex's default.
const ttl = 60 * time.Second

// A library makes sessions on a client.
type library struct {
	name string
	open func(context.Context, *clientv3.Client, time.Duration) (session, error)
}

var (
	ours = library{"etcdlock", openOurs}
	// oursOfFour and mutexesOfFour take four keys at once.
	oursOfFour    = library{"set of 4 keys", openSets}
	mutexesOfFour = library{"4 Mutexes", openMutexesInTurn}
	mutex         = library{"Mutex", openMutexes}
	// oneSession is for Mutexes on different keys, which can share a lease.
	oneSession = library{"Mutex", openOneSession}
)

// A session makes contenders, each of which can take its turn at once: what needs a lease has it.
type session interface {
	contender(ctx context.Context, key string) (contender, error)
	close(context.Context) error
}

// A contender gets the lock and gives it back.
type contender struct {
	lock, unlock func(context.Context) error
}

// ourSession shares one lease among its locks.
type ourSession struct{ *etcdlock.Session }

func openOurs(ctx context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := etcdlock.NewSession(client, ttl)
	if err != nil {
		return nil, err
	}
	return ourSession{s}, s.Prepare(ctx)
}

func (s ourSession) contender(_ context.Context, key string) (contender, error) {
	return s.contenderAs(etcdlock.Exclusive, key)
}

func (s ourSession) contenderAs(mode etcdlock.Mode, key string) (contender, error) {
	l, err := s.NewLock(key, "bench")
	if err != nil {
		return contender{}, err
	}
	l.Mode = mode
	return contender{
		lock:   func(ctx context.Context) error { _, err := l.Lock(ctx); return err },
		unlock: l.Unlock,
	}, nil
}

func (s ourSession) close(ctx context.Context) error { return s.Session.Close(ctx) }

const setSize = 4

// keysOf returns the keys of a set.
func keysOf(key string) (all []string) {
	for i := range setSize {
		all = append(all, fmt.Sprint(key, "-", i))
	}
	return all
}

// setSession is one whose contenders are sets.
type setSession struct{ ourSession }

func openSets(ctx context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := openOurs(ctx, client, ttl)
	if err != nil {
		return nil, err
	}
	return setSession{s.(ourSession)}, nil
}

func (s setSession) contender(_ context.Context, key string) (contender, error) {
	set, err := s.NewSet(keysOf(key), "bench")
	if err != nil {
		return contender{}, err
	}
	return contender{
		lock:   func(ctx context.Context) error { _, err := set.Lock(ctx); return err },
		unlock: set.Unlock,
	}, nil
}

// mutexesInTurn is a session whose contenders take one Mutex after another.
type mutexesInTurn struct{ mutexSession }

func openMutexesInTurn(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := newMutexSession(client, ttl)
	return mutexesInTurn{mutexSession{s}}, err
}

func (s mutexesInTurn) contender(_ context.Context, key string) (contender, error) {
	var all []contender
	for _, key := range keysOf(key) {
		all = append(all, mutexOf(s.Session, key))
	}
	return contender{
		lock: func(ctx context.Context) (err error) {
			for i := 0; i < len(all) && err == nil; i++ {
				err = all[i].lock(ctx)
			}
			return err
		},
		unlock: func(ctx context.Context) (err error) {
			for _, one := range all {
				err = errors.Join(err, one.unlock(ctx))
			}
			return err
		},
	}, nil
}

// mutexes have a lease each: two of one lease take each other for themselves.
type mutexes struct {
	client   *clientv3.Client
	ttl      time.Duration
	sessions []*concurrency.Session
}

func openMutexes(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	return &mutexes{client: client, ttl: ttl}, nil
}

func (m *mutexes) contender(_ context.Context, key string) (contender, error) {
	s, err := newMutexSession(m.client, m.ttl)
	if err != nil {
		return contender{}, err
	}
	m.sessions = append(m.sessions, s)
	return mutexOf(s, key), nil
}

func (m *mutexes) close(context.Context) (err error) {
	for _, s := range m.sessions {
		err = errors.Join(err, s.Close())
	}
	return err
}

// mutexSession is one lease for Mutexes on different keys.
type mutexSession struct{ *concurrency.Session }

func openOneSession(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := newMutexSession(client, ttl)
	return mutexSession{s}, err
}

func (s mutexSession) contender(_ context.Context, key string) (contender, error) {
	return mutexOf(s.Session, key), nil
}

func (s mutexSession) close(context.Context) error { return s.Session.Close() }

func newMutexSession(client *clientv3.Client, ttl time.Duration) (*concurrency.Session, error) {
	return concurrency.NewSession(client, concurrency.WithTTL(int(ttl/time.Second)))
}

func mutexOf(s *concurrency.Session, key string) contender {
	m := concurrency.NewMutex(s, key)
	return contender{m.Lock, m.Unlock}
}

var keys atomic.Int64

// newKey returns one that was not used before.
func newKey() string { return fmt.Sprintf("/bench/%d", keys.Add(1)) }
