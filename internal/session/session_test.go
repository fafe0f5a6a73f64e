package session

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/debts"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// TestOtherLeaseEnds: a lease that its last lock has left is revoked, also if etcd does not answer
// when that is tried first.
func TestOtherLeaseEnds(t *testing.T) {
	s := etcdtest.Start(t)
	gate, client := s.Gated(t)
	ctx, log := etcdtest.Context(t), slog.New(slog.DiscardHandler)
	session := New(client, true)
	defer session.Close(ctx)
	timing := lease.Timing{TTL: 10 * time.Minute, Refresh: 3 * time.Minute, Grace: 5 * time.Second, Connect: time.Minute}
	old, err := session.Prepare(ctx, "/k", timing, log)
	if err != nil {
		t.Fatal(err)
	}
	revocations := make(chan struct{}, 100)
	gate.Intercept(func(_ string, request proto.Message) etcdtest.Verdict {
		if _, is := request.(*pb.LeaseRevokeRequest); is {
			revocations <- struct{}{}
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	next, err := session.Grant(ctx, timing)
	if err == nil {
		err = session.adopt(ctx, next, timing, log) // as if the old one were crowded
	}
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 2*debts.Limit; { // longer than one attempt
		<-revocations
	}
	gate.Intercept(nil)
	etcdtest.Await(t, "the lease to end", func(ctx context.Context) error {
		left, err := s.Client(t).TimeToLive(ctx, old.ID())
		if err == nil && left.TTL > 0 {
			err = fmt.Errorf("it has %d s left", left.TTL)
		}
		return err
	})
}
