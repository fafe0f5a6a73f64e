//go:build linux

package scenarios

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// TestLost: whatever takes the lock away, the whole tree is dead before the end, and the code is 2.
func TestLost(t *testing.T) {
	t.Parallel()
	tests := map[string]func(ctx context.Context, c *clientv3.Client, key string) error{
		"deleted": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Delete(ctx, key)
			return err
		},
		"overwritten": func(ctx context.Context, c *clientv3.Client, key string) error {
			_, err := c.Put(ctx, key, "x")
			return err
		},
		"lease revoked": func(ctx context.Context, c *clientv3.Client, key string) error {
			resp, err := c.Get(ctx, key)
			if err == nil {
				_, err = c.Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
			}
			return err
		},
	}
	for name, do := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Shared(t)
			client, key := s.Client(t), "/lost/"+name
			file := filepath.Join(t.TempDir(), "pid")
			p := programs.Locker(t, s.Endpoint(), "-k", key, "-t", "30", "--grace", "0.3", "--", "sh", "-c",
				`setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 0.05; done' `+file+` & trap '' TERM; while :; do sleep 0.05; done`)
			worker := programs.AwaitFile(t, file)
			if err := do(etcdtest.Context(t), client, key); err != nil {
				t.Fatal(err)
			}
			if code := p.Code(); code != 2 {
				t.Errorf("exit code %d", code)
			}
			programs.AwaitEnd(t, worker)
			// What was put there by hand.
			if _, err := client.Delete(etcdtest.Context(t), key); err != nil {
				t.Error(err)
			}
			if !strings.Contains(p.Stderr.String(), "etcdlocker: error: lock ") || !strings.Contains(p.Stderr.String(), "etcdlocker: hint: ") {
				t.Errorf("it says %q", p.Stderr)
			}
		})
	}
}

// TestDeletedKeyIsNoticedAtOnce: from the deletion to the end of the command it takes 50 ms where
// nothing else runs. Ten times that, and some tries, are for loaded machines.
func TestDeletedKeyIsNoticedAtOnce(t *testing.T) {
	s := etcdtest.Shared(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	best := time.Hour
	for range 20 {
		p := programs.Locker(t, s.Endpoint(), "-k", "/noticed", "-t", "60", "--", "sh", "-c", `echo ready; exec sleep 1000`)
		p.Says(p.Stdout, "ready")
		// A holder that has settled: at first it reads more often.
		time.Sleep(100 * time.Millisecond)
		deleted := time.Now()
		if _, err := client.Delete(ctx, "/noticed"); err != nil {
			t.Fatal(err)
		}
		if code := p.Code(); code != 2 {
			t.Fatalf("exit code %d, %q", code, p.Stderr)
		}
		if best = min(best, time.Since(deleted)); best < 500*time.Millisecond {
			t.Logf("it took %v", best)
			return
		}
	}
	t.Errorf("it took %v at best", best)
}
