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

// TestUnderOfASet: a set that waits says which locks it has already, each time anew.
func TestUnderOfASet(t *testing.T) {
	client, ctx := etcdtest.Shared(t).Client(t), etcdtest.Context(t)
	set, err := newSession(t, client).NewSet([]string{"/under-set/b", "/under-set/a"}, "me")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		other := lockOf(t, client, "/under-set/b", "other", etcdlock.Exclusive)
		lockNow(t, other)
		done := make(chan error, 1)
		go func() { _, err := set.Lock(ctx); done <- err }()
		var b admin.Line
		etcdtest.Await(t, "it to wait", func(ctx context.Context) (err error) {
			if b, err = admin.Look(ctx, client, "/under-set/b"); err == nil && len(b.Waiters) != 1 {
				err = fmt.Errorf("%+v", b)
			}
			return err
		})
		has := admin.Under{Key: "/under-set/a", Token: look(t, client, "/under-set/a").Token}
		if got := b.Waiters[0].Under; len(got) != 1 || got[0] != has || has.Token == 0 {
			t.Errorf("it is under %+v, not %+v", got, has)
		}
		if err := other.Unlock(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := set.Unlock(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
