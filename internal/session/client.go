package session

import (
	"errors"
	"fmt"
	"reflect"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// CheckClient refuses a client that would not see the same keys as a lock, which asks etcd itself.
func CheckClient(client *clientv3.Client) error {
	if client == nil {
		return errors.New("the etcd client is nil")
	}
	for _, part := range []struct {
		name      string
		is, plain any
	}{
		{"KV", client.KV, clientv3.NewKVFromKVClient(nil, nil)},
		{"Watcher", client.Watcher, clientv3.NewWatchFromWatchClient(nil, nil)},
		{"Lease", client.Lease, clientv3.NewLeaseFromLeaseClient(nil, nil, 0)},
	} {
		switch {
		case part.is == nil:
			return errors.New("the etcd client was not made by clientv3.New")
		case reflect.TypeOf(part.is) != reflect.TypeOf(part.plain):
			return fmt.Errorf("the etcd client's %s was replaced by a %T, as etcd's namespace package does it, and would not see "+
				"the keys that the lock writes: pass the client as clientv3.New returned it, and put a prefix into the lock's key", part.name, part.is)
		}
	}
	return nil
}
