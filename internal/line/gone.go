package line

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrEnded says that nothing is watched any more, as the client is closed.
var ErrEnded = errors.New("the etcd client is closed")

// AwaitGone waits until a key is gone, or was created anew. It looks when the key is watched, and
// after each change: whoever deletes what makes a holder one has not deleted its place.
func AwaitGone(ctx context.Context, client *clientv3.Client, kv *mvccpb.KeyValue) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range client.Watch(ctx, string(kv.Key), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return err
		}
		now, err := client.Get(ctx, string(kv.Key))
		if err != nil || len(now.Kvs) == 0 || now.Kvs[0].CreateRevision != kv.CreateRevision {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return ErrEnded
}
