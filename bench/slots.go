package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// slots is how many slots a semaphore has. All but one are held by others all the time: so that one
// goes from hand to hand, as a lock does that one holds alone.
const slots = 10

// oursSlots is the side whose contenders want a slot.
var oursSlots = library{fmt.Sprintf("etcdlock, one of %d slots", slots), openSlots}

// slotSession is one whose contenders want a slot.
type slotSession struct{ ourSession }

func openSlots(ctx context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := openOurs(ctx, client, ttl)
	if err != nil {
		return nil, err
	}
	return slotSession{s.(ourSession)}, nil
}

func (s slotSession) contender(_ context.Context, key string) (contender, error) {
	return s.contenderAs(etcdlock.Slots(slots), key)
}

func (s slotSession) crowd(ctx context.Context, key string) error { return takeAllButOne(ctx, s, key) }

// A crowded session takes most of what a key has before the line begins.
type crowded interface {
	crowd(ctx context.Context, key string) error
}

// takeAllButOne takes all slots of a key but one.
func takeAllButOne(ctx context.Context, s session, key string) error {
	for range slots - 1 {
		one, err := s.contender(ctx, key)
		if err == nil {
			err = one.lock(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// oneKey is the peer: slots as Consul's clients make them. K is a list in JSON of those who have
// one, and each contender has a key below K. Each change wakes all.
var oneKey = library{"slots in one key", openOneKey}

type oneKeySession struct {
	mutexSession
	client *clientv3.Client
	n      *atomic.Int64 // contenders
}

func openOneKey(_ context.Context, client *clientv3.Client, ttl time.Duration) (session, error) {
	s, err := newMutexSession(client, ttl)
	return oneKeySession{mutexSession{s}, client, new(atomic.Int64)}, err
}

func (s oneKeySession) crowd(ctx context.Context, key string) error {
	return takeAllButOne(ctx, s, key)
}

func (s oneKeySession) contender(_ context.Context, key string) (contender, error) {
	own := fmt.Sprintf("%s/%x-%d", key, s.Lease(), s.n.Add(1))
	return contender{
		lock: func(ctx context.Context) error {
			if _, err := s.client.Put(ctx, own, "", clientv3.WithLease(s.Lease())); err != nil {
				return err
			}
			return s.change(ctx, key, func(holders []string) ([]string, bool) { return append(holders, own), len(holders) < slots })
		},
		unlock: func(ctx context.Context) error {
			err := s.change(ctx, key, func(holders []string) ([]string, bool) {
				return slices.DeleteFunc(holders, func(one string) bool { return one == own }), true
			})
			_, gone := s.client.Delete(ctx, own)
			return errors.Join(err, gone)
		},
	}, nil
}

// change replaces the list of a key, once it may be.
func (s oneKeySession) change(ctx context.Context, key string, to func(holders []string) ([]string, bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var changes clientv3.WatchChan
	for {
		resp, err := s.client.Get(ctx, key)
		if err != nil {
			return err
		}
		var holders []string
		var written int64
		for _, kv := range resp.Kvs {
			written = kv.ModRevision
			if err := json.Unmarshal(kv.Value, &holders); err != nil {
				return err
			}
		}
		if changed, may := to(holders); may {
			list, err := json.Marshal(changed)
			if err != nil {
				return err
			}
			done, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", written)).
				Then(clientv3.OpPut(key, string(list))).Commit()
			if err != nil || done.Succeeded {
				return err
			}
			continue // somebody else was first
		}
		if changes == nil {
			changes = s.client.Watch(ctx, key, clientv3.WithRev(resp.Header.Revision+1))
		}
		if seen, ok := <-changes; !ok || seen.Err() != nil {
			return errors.Join(errors.New("the watch ended"), seen.Err())
		}
	}
}

// slotRows returns the rows about lines of those who want a slot.
func (x extent) slotRows() []row {
	few, most := x.growth.sizes[0], x.growth.sizes[len(x.growth.sizes)-1]
	rows := []row{{fmt.Sprintf("server CPU per hand-over of a slot at %s waiters, against that at %s", thousands(most), thousands(few)), "ms", "cpu",
		waiters(oursSlots, most), waiters(oursSlots, few), atMost(1.5)}}
	for _, n := range []int{few, most} {
		rows = append(rows, row{fmt.Sprintf("hand-over of one of %d slots with %s waiting, against a lock, p50", slots, thousands(n)), "ms", "p50",
			waiters(oursSlots, n), waiters(ours, n), atMost(1.8)})
	}
	with := fmt.Sprintf("the same with %s waiting, against ", thousands(few))
	return append(rows,
		row{with + "slots in one key", "ms", "p50", waiters(oursSlots, few), waiters(oneKey, few), target{}},
		row{with + "a line without locks", "ms", "p50", waiters(oursSlots, few), waiters(bareTwo, few), target{}},
		row{"two commits against one, in lines without locks", "ms", "p50", waiters(bareTwo, few), waiters(bareOne, few), target{}})
}
