package etcdlock

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watch tells of changes to one key from now on. What it tells is a hint, what it does not tell may have
// happened all the same: a member that fell silent leaves its streams open and empty.
type watch struct {
	events clientv3.WatchChan
	close  context.CancelFunc
}

// openWatch returns once etcd has confirmed the watch, or false when that takes too long. It starts from now and
// never from a past revision: etcd serves those from a loop that runs every 100 ms, and a lock handed over would
// wait for it.
func openWatch(ctx context.Context, ls *lease, key string) (watch, bool) {
	ctx, cancel := context.WithCancel(ctx)
	limit := time.AfterFunc(growth*ls.first, cancel)
	// The client's Watch returns when the server has confirmed it.
	events := ls.client.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithCreatedNotify())
	if !limit.Stop() {
		cancel()
		return watch{nil, cancel}, false
	}
	first, ok := <-events
	return watch{events, cancel}, ok && first.Err() == nil
}
