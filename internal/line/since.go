package line

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/mode"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// Mode returns how those who have the lock have it.
func (l Line) Mode() mode.Mode {
	switch {
	case l.Shared:
		return mode.Shared
	case l.Slots > 0:
		return mode.OfSlots(l.Slots)
	}
	return mode.Exclusive
}

// AddSince reads since when the holders of locks have them. What they have not said, or this user
// may not read, stays the zero time: then it returns why.
func AddSince(ctx context.Context, client *clientv3.Client, lines []Line) error {
	var holders []*Holder
	var reads []reading
	for _, l := range lines {
		for i, h := range l.Holders {
			if h.Place != nil && !h.Mutex {
				p := wire.Place{Lock: l.Lock, Key: string(h.Place.Key), Mode: l.Mode()}
				holders, reads = append(holders, &l.Holders[i]), append(reads, reading{of: new(surveyed), key: wire.Since(p), isKey: true})
			}
		}
	}
	now := &survey{client: client}
	err := now.values(ctx, reads)
	for i, h := range holders {
		if kv := first(reads[i].of.k); kv != nil {
			if said := record.SinceOf(kv.Value); said.Token == h.Nonce {
				h.Since = said.At
			}
		}
	}
	return err
}
