package etcdtest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/client/v3"
)

// Keys returns the keys that begin with prefix, in the order in which they were created. With a
// lock's key and a slash as the prefix they are the places in its line. Keys that say since when a
// lock is held, which come when it has been held for a second, are left out, unless nothing else is
// there.
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
	isSince := func(kv *mvccpb.KeyValue) bool { return strings.HasSuffix(string(kv.Key), "~since") }
	if others := slices.DeleteFunc(slices.Clone(keys), isSince); len(others) > 0 {
		return others
	}
	return keys
}
