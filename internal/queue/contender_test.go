package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/protocol"
	"github.com/etcdlock/etcdlock/internal/watch"
	"github.com/etcdlock/etcdlock/internal/wire"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// nobody is a User who is not interested.
type nobody struct{}

func (nobody) Waiting()                    {}
func (nobody) Lost(protocol.Reason, error) {}
func (nobody) Expired()                    {}

// TestNotSent: what was not sent when the context ended is not sent, and nothing is looked for.
func TestNotSent(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	timing := lease.Timing{TTL: 20 * time.Second, Refresh: 5 * time.Second, Grace: time.Second, Connect: 10 * time.Second}
	ls, err := lease.Grant(etcdtest.Context(t), client, timing)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Revoke(context.Background(), client, ls.ID(), time.Second)
	log := slog.New(slog.DiscardHandler)
	ls.Share(timing, log)
	defer ls.Close()
	place := wire.Place{
		Lock:   "/not-sent",
		Key:    wire.LinkedPlace("/not-sent", ls.ID(), 1),
		Lease:  ls.ID(),
		ID:     "me",
		Record: wire.Self("me").Marshal(),
		Linked: true,
	}
	c := New(Options{Place: place, Lease: ls, Timing: timing, Log: log}, nobody{})
	before, err := client.Get(etcdtest.Context(t), place.Key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	cancel()
	var end *EndError
	if err := c.Acquire(ctx, nil); !errors.As(err, &end) || end.End != protocol.Cancelled {
		t.Errorf("Acquire: %v", err)
	}
	c.Leave(etcdtest.Context(t))
	etcdtest.Await(t, "all watches to end", func(context.Context) error {
		if all, _ := watch.All(client); len(all) > 0 {
			return fmt.Errorf("%d watches", len(all))
		}
		return nil
	})
	after, err := client.Get(etcdtest.Context(t), place.Key)
	if err != nil || after.Header.Revision != before.Header.Revision {
		t.Errorf("something was written: %v, %v", after, err)
	}
}
