package line

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A TTL is what etcd says of a lease: its TTL as granted, and how much of that is left.
type TTL struct{ Granted, Left time.Duration }

// TTLs asks how long the leases of holders have left. What etcd does not tell this user, or not
// until ctx is done, is absent.
func TTLs(ctx context.Context, client *clientv3.Client, lines []Line) map[clientv3.LeaseID]TTL {
	all := make(map[clientv3.LeaseID]TTL)
	var ids []clientv3.LeaseID
	for _, l := range lines {
		for _, h := range l.Holders {
			if _, known := all[h.Lease]; !known && h.Lease != 0 {
				all[h.Lease] = TTL{}
				ids = append(ids, h.Lease)
			}
		}
	}
	var mu sync.Mutex
	inParallel(ctx, len(ids), func(ctx context.Context, i int) error {
		resp, err := client.TimeToLive(ctx, ids[i])
		if err != nil || resp.TTL < 0 {
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		all[ids[i]] = TTL{time.Duration(resp.GrantedTTL) * time.Second, time.Duration(resp.TTL) * time.Second}
		return nil
	})
	return all
}
