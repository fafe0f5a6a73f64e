//go:build linux

package programs

import (
	"context"
	"errors"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// CheckEndsBefore waits until a lease is gone. The test fails if something of the lock's command
// runs when it is.
func CheckEndsBefore(t testing.TB, client *clientv3.Client, key string, lease int64) {
	t.Helper()
	for ctx := etcdtest.Context(t); ; {
		about, err := client.TimeToLive(ctx, clientv3.LeaseID(lease), clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		if about.TTL < 0 {
			break
		}
		if len(about.Keys) == 0 {
			continue // it is about to be revoked
		}
		// The keys go with it.
		watching, stop := context.WithCancel(ctx)
		<-client.Watch(watching, string(about.Keys[0]), clientv3.WithRev(about.Revision+1))
		stop()
	}
	if left := Running("ETCD_LOCK_KEY=" + key); len(left) > 0 {
		t.Errorf("the lease is gone, and these run: %v", left)
	}
}

// CheckFree fails the test if something is left of one of these locks, now.
func CheckFree(t testing.TB, client *clientv3.Client, keys ...string) {
	t.Helper()
	for _, key := range keys {
		for _, kv := range etcdtest.Keys(t, client, key) {
			if left := string(kv.Key); left == key || strings.HasPrefix(left, key+"/") {
				t.Errorf("left in etcd: %q", left)
			}
		}
	}
}

// HasLease reports whether a lease has not run out or been revoked.
func HasLease(t testing.TB, client *clientv3.Client, lease int64) bool {
	t.Helper()
	resp, err := client.TimeToLive(etcdtest.Context(t), clientv3.LeaseID(lease))
	if err != nil {
		t.Fatal(err)
	}
	return resp.TTL >= 0
}

// AwaitHeld waits until somebody has a lock exclusively, and returns its key. It may be held no
// more by then.
func AwaitHeld(t testing.TB, client *clientv3.Client, key string) *clientv3.GetResponse {
	t.Helper()
	var got *clientv3.GetResponse
	etcdtest.Await(t, "the lock to be held", func(ctx context.Context) error {
		resp, err := client.Get(ctx, key)
		if err == nil && len(resp.Kvs) == 0 {
			err = errors.New("nobody has it")
		}
		got = resp
		return err
	})
	return got
}
