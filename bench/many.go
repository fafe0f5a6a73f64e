package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// oursAlone has a session, and so a lease, for each lock: nothing is sent together.
var oursAlone = library{"a session for each", openAlone}

// aloneSession makes each contender with a session of its own, on one client.
type aloneSession struct {
	client   *clientv3.Client
	ttl      time.Duration
	sessions []session
}

func openAlone(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	return &aloneSession{client: client, ttl: ttl}, nil
}

func (s *aloneSession) contender(ctx context.Context, key string) (contender, error) {
	own, err := openOurs(ctx, s.client, s.ttl)
	if err != nil {
		return contender{}, err
	}
	s.sessions = append(s.sessions, own)
	return own.contender(ctx, key)
}

func (s *aloneSession) close(ctx context.Context) error {
	return inParallel(len(s.sessions), func(i int) error { return s.sessions[i].close(ctx) })
}

// manyKeys lets contenders of some processes take turns on many keys, one of each process on each
// key. Without company a contender is alone on its key.
func manyKeys(ctx context.Context, e etcd, lib library, processes, keys, turns int) (_ figures, err error) {
	c := &crowd{}
	defer func() { err = errors.Join(err, c.close()) }()
	var names []string
	for range keys {
		names = append(names, newKey())
	}
	for range processes {
		s, err := c.session(ctx, e, lib)
		if err != nil {
			return nil, err
		}
		for _, key := range names {
			one, err := s.contender(ctx, key)
			if err != nil {
				return nil, err
			}
			c.contenders = append(c.contenders, one)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([][]float64, len(c.contenders))
	var turning sync.WaitGroup
	start := time.Now()
	for i, one := range c.contenders {
		turning.Go(func() {
			for range turns {
				began := time.Now()
				if err := one.lock(ctx); err != nil {
					cancel(err)
					return
				}
				if err := one.unlock(ctx); err != nil {
					cancel(err)
					return
				}
				all[i] = append(all[i], milliseconds(time.Since(began)))
			}
		})
	}
	turning.Wait()
	took := time.Since(start)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var every []float64
	for _, some := range all {
		every = append(every, some...)
	}
	f := spread(every)
	f["rate"] = []float64{float64(len(every)) / took.Seconds()}
	return f, nil
}

// batchFloor is what none can be faster than that sends several locks in one request.
const batchFloor = "the same writes alone"

// mostTogether is how many locks etcdlock sends in one request.
const mostTogether = 96

// bareBatches writes what a lock of each of some keys has while it is held, and deletes that, all
// in as few requests as possible. Nothing is compared, nor is anything in line.
func bareBatches(ctx context.Context, e etcd, keys, turns int) (figures, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	granted, err := client.Grant(ctx, int64(ttl.Seconds()))
	if err != nil {
		return nil, err
	}
	var names []string
	for range keys {
		names = append(names, newKey())
	}
	requests := (keys + mostTogether - 1) / mostTogether
	start := time.Now()
	err = inParallel(requests, func(i int) error {
		var take, give []clientv3.Op
		for _, key := range names[i*keys/requests : (i+1)*keys/requests] {
			place := fmt.Sprintf("%s/%x-1", key, granted.ID)
			take = append(take, clientv3.OpTxn(nil, []clientv3.Op{
				clientv3.OpPut(key, "bench", clientv3.WithLease(granted.ID)),
				clientv3.OpPut(place, `{"id":"bench","host":"localhost","pid":12345}`, clientv3.WithLease(granted.ID)),
			}, nil))
			give = append(give, clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete(key), clientv3.OpDelete(place)}, nil))
		}
		for range turns {
			for _, ops := range [][]clientv3.Op{take, give} {
				if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return figures{"rate": {float64(keys*turns) / time.Since(start).Seconds()}}, err
}

// keysOfMany compares contenders of one session for each process with those that have a session
// each, and with Mutexes of one session. All take as many turns together.
func (x extent) keysOfMany(a arena, processes, keys int) (sides []side) {
	turns := max(x.together/(processes*keys), 2)
	for _, lib := range []library{ours, oursAlone, oneSession} {
		sides = append(sides, side{lib.name, a.in(func(ctx context.Context, e etcd) (figures, error) {
			return manyKeys(ctx, e, lib, processes, keys, turns)
		})})
	}
	return sides
}

// many has each contender on a key of its own.
func (x extent) many(a arena, n int, ofAlone, ofMutex target) measurement {
	name := fmt.Sprintf("%d at once, each on a key of its own", n)
	sides := append(x.keysOfMany(a, 1, n), side{batchFloor, a.in(func(ctx context.Context, e etcd) (figures, error) {
		return bareBatches(ctx, e, n, max(x.together/n, 2))
	})})
	return measurement{a.prefix + name, sides, []row{
		against(name+", lock and unlock", "/s", "rate", ofMutex),
		{"the same", "/s", "rate", ours.name, batchFloor, target{}},
		{batchFloor + ", without locks", "/s", "rate", batchFloor, oneSession.name, target{}},
		{"the same", "/s", "rate", ours.name, oursAlone.name, ofAlone},
		against("p99 of one", "ms", "p99", target{}),
		{"the same", "ms", "p99", ours.name, oursAlone.name, atMost(1)},
	}}
}

// manyHandOvers has ten processes want the same keys.
func (x extent) manyHandOvers(a arena, keys int, t target) measurement {
	name := fmt.Sprintf("%d keys, 10 contenders for each", keys)
	return measurement{a.prefix + name, x.keysOfMany(a, 10, keys), []row{
		against(name+", turns", "/s", "rate", target{}),
		{"the same", "/s", "rate", ours.name, oursAlone.name, t},
	}}
}
