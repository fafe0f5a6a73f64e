package admin_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/record"
)

// TestAcquired: who has had a lock for a second says since when, in all modes; what is said of
// another holding does not count.
func TestAcquired(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	for name, mode := range map[string]etcdlock.Mode{"alone": etcdlock.Exclusive, "shared": etcdlock.Shared, "slots": etcdlock.Slots(2)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := "/acquired/" + name
			l, err := etcdlock.New(client, key, "me", 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			l.Mode = mode
			old := record.Since{Token: 1, At: time.Now().Add(-time.Hour)}.Marshal()
			if _, err := client.Put(ctx, key+"~since", old, clientv3.WithLease(granted(t, client).ID)); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Lock(ctx); err != nil {
				t.Fatal(err)
			}
			got := time.Now()
			var h admin.Holder
			etcdtest.Await(t, "it to be said", func(ctx context.Context) error {
				line, err := admin.Look(ctx, client, key)
				if err != nil || len(line.Holders) != 1 || line.Holders[0].Acquired.IsZero() {
					return fmt.Errorf("%+v, %w", line, err)
				}
				h = line.Holders[0]
				return nil
			})
			if since, exact := h.Since(); !exact || since.Before(h.Joined) || since.After(got) {
				t.Errorf("held since %v, joined %v, got %v", since, h.Joined, got)
			}
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
			if _, err := client.Delete(ctx, key+"~since"); err != nil {
				t.Error(err)
			}
		})
	}
}
