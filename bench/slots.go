package main

import (
	"context"
	"fmt"
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

// crowd takes all slots of a key but one.
func (s slotSession) crowd(ctx context.Context, key string) error {
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

// slotRows returns the rows about lines of those who want a slot.
func (x extent) slotRows() []row {
	few, most := x.growth.sizes[0], x.growth.sizes[len(x.growth.sizes)-1]
	rows := []row{{fmt.Sprintf("server CPU per hand-over of a slot at %s waiters, against that at %s", thousands(most), thousands(few)), "ms", "cpu",
		waiters(oursSlots, most), waiters(oursSlots, few), atMost(1.5)}}
	for _, n := range []int{few, most} {
		rows = append(rows, row{fmt.Sprintf("hand-over of one of %d slots with %s waiting, against a lock, p50", slots, thousands(n)), "ms", "p50",
			waiters(oursSlots, n), waiters(ours, n), atMost(1.8)})
	}
	return rows
}
