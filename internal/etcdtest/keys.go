package etcdtest

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3"
)

// Keys returns the keys that begin with prefix, in the order in which they were created. With a
// lock's key and a slash as the prefix they are the places in its line.
func Keys(t testing.TB, client *clientv3.Client, prefix string) (keys []*mvccpb.KeyValue) {
	t.Helper()
	Await(t, "the keys with prefix "+prefix, func(ctx context.Context) error {
		resp, err := client.Get(ctx, prefix, clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		if err == nil {
			keys = resp.Kvs
		}
		return err
	})
	return keys
}
