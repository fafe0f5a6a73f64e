package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/message"
	"github.com/etcdlock/etcdlock/internal/record"
	"github.com/etcdlock/etcdlock/internal/standing"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// nobody is a User who is not interested.
type nobody struct{}

func (nobody) Waiting()                   {}
func (nobody) Acquired()                  {}
func (nobody) Lost(message.Reason, error) {}
func (nobody) Expired()                   {}

// newContender returns a contender that has not begun, with a lease of its own session.
func newContender(t *testing.T, client *clientv3.Client, lock string) *Contender {
	t.Helper()
	timing := lease.Timing{TTL: 20 * time.Second, Refresh: time.Minute, Grace: time.Second, Connect: 10 * time.Second}
	ls, err := lease.Grant(etcdtest.Context(t), client, timing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lease.Revoke(context.Background(), client, ls.ID(), time.Second) })
	log := slog.New(slog.DiscardHandler)
	ls.Share(timing, log)
	t.Cleanup(ls.Close)
	place := wire.Place{
		Lock:   lock,
		Key:    wire.LinkedPlace(lock, ls.ID(), 1),
		Lease:  ls.ID(),
		ID:     "me",
		Record: record.Self("me").Marshal(),
		Linked: true,
	}
	return New(Options{Place: place, Lease: ls, Timing: timing, Log: log}, nobody{})
}

// TestNotSent: what was not sent when the context ended is not sent, and nothing is looked for.
func TestNotSent(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	c := newContender(t, client, "/not-sent")
	before, err := client.Get(etcdtest.Context(t), c.Place.Key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	cancel()
	var end *EndError
	if err := c.Acquire(ctx, nil); !errors.As(err, &end) || end.End != message.Cancelled {
		t.Errorf("Acquire: %v", err)
	}
	c.Leave(etcdtest.Context(t))
	etcdtest.Await(t, "all watches to end", func(context.Context) error {
		if all, _ := watch.All(client); len(all) > 0 {
			return fmt.Errorf("%d watches", len(all))
		}
		return nil
	})
	after, err := client.Get(etcdtest.Context(t), c.Place.Key)
	if err != nil || after.Header.Revision != before.Header.Revision {
		t.Errorf("something was written: %v, %v", after, err)
	}
}

// TestDeniedAfterARefusedToken: a waiter that could not read its state for want of a token does not
// wait on when it turns out that it may not.
func TestDeniedAfterARefusedToken(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	c := newContender(t, client, "/denied")
	defer client.Delete(context.Background(), "/denied")
	if _, err := client.Put(etcdtest.Context(t), "/denied", "by hand"); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { got <- c.Acquire(etcdtest.Context(t), nil) }()
	etcdtest.Await(t, "it to wait", func(context.Context) error {
		if state := c.state(); state != standing.Waiting {
			return fmt.Errorf("%v", state)
		}
		return nil
	})
	c.sight.end.Store(1) // when the machine began
	c.OnUnreadable(rpctypes.ErrInvalidAuthToken)
	c.OnUnreadable(rpctypes.ErrPermissionDenied)
	if err := <-got; !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("Acquire: %v", err)
	}
	c.Leave(etcdtest.Context(t))
}

// TestReadableInTime: a lock whose state may be read again is read before it would be lost, also if
// no renewal comes in that time.
func TestReadableInTime(t *testing.T) {
	t.Parallel()
	client := etcdtest.Shared(t).Client(t)
	c := newContender(t, client, "/readable")
	if err := c.Acquire(etcdtest.Context(t), nil); err != nil {
		t.Fatal(err)
	}
	etcdtest.Await(t, "the first reads to be over", func(context.Context) error {
		c.OnUnreadable(rpctypes.ErrPermissionDenied)
		time.Sleep(250 * time.Millisecond) // nothing tells that none comes any more
		if !c.IsUnreadable() {
			return errors.New("it was read")
		}
		return nil
	})
	etcdtest.Await(t, "the state to be read", func(context.Context) error {
		if state := c.state(); state != standing.Held {
			t.Fatalf("it is %v", state)
		}
		if c.IsUnreadable() {
			return errors.New("it was not read")
		}
		return nil
	})
	c.Release(etcdtest.Context(t))
}
