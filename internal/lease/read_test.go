package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A refusing is an etcd that refuses transactions. A real one refuses a token also to the renewals,
// so that it comes to no reads.
type refusing struct {
	pb.KVClient
	why  error
	asks int
}

func (r *refusing) Txn(context.Context, *pb.TxnRequest, ...grpc.CallOption) (*pb.TxnResponse, error) {
	r.asks++
	return nil, r.why
}

// A told is a member that counts what it is told.
type told struct {
	Member
	slot       Slot
	unreadable int
}

func (m *told) Slot() *Slot        { return &m.slot }
func (m *told) OnUnreadable(error) { m.unreadable++ }
func (m *told) StateRead() ([]*pb.RequestOp, func(*pb.TxnResponse, int)) {
	return wire.StateOps("/k", "/k/~1-1", ""), func(*pb.TxnResponse, int) {}
}

// TestRefusedReads: what is denied is read member by member, as one of them may be the cause. What
// is refused for another reason, as a token, is asked for once: each time may cost a login.
func TestRefusedReads(t *testing.T) {
	for why, asks := range map[error]int{rpctypes.ErrPermissionDenied: 7, rpctypes.ErrInvalidAuthToken: 1} {
		etcd := &refusing{why: why}
		l := &Lease{client: etcdtest.Shared(t).Client(t), kv: etcd, first: time.Minute}
		var some []Member
		for range 4 {
			some = append(some, &told{})
		}
		if _, err := (reader{l}).states(t.Context(), some, ""); err == nil || etcd.asks != asks {
			t.Errorf("%v: asked %d times, %v", why, etcd.asks, err)
		}
		for i, m := range some {
			if n := m.(*told).unreadable; n != 1 {
				t.Errorf("%v: member %d was told %d times", why, i, n)
			}
		}
	}
}

// A slow etcd answers when the test says so.
type slow struct {
	pb.KVClient
	asked    chan *pb.TxnRequest
	answered chan struct{}
}

func (s *slow) Txn(ctx context.Context, req *pb.TxnRequest, options ...grpc.CallOption) (*pb.TxnResponse, error) {
	s.asked <- req
	<-s.answered
	return s.KVClient.Txn(ctx, req, options...)
}

// TestReadsTogether: what is read for many locks of a shared lease goes together while etcd is
// slow, and each is answered with its own.
func TestReadsTogether(t *testing.T) {
	client := etcdtest.Shared(t).Client(t)
	ctx := etcdtest.Context(t)
	timing := Timing{TTL: time.Hour, Refresh: 20 * time.Minute, Grace: time.Minute, Connect: time.Minute}
	l, err := Grant(ctx, client, timing)
	if err != nil {
		t.Fatal(err)
	}
	l.Share(timing, slog.New(slog.DiscardHandler))
	defer Revoke(ctx, client, l.ID(), time.Second)
	defer l.Close()
	etcd := l.kv
	for most := 0; most < 2; { // on a slow machine they may come one after the other
		slow := &slow{etcd, make(chan *pb.TxnRequest, 1000), make(chan struct{})}
		l.kv = slow
		var all sync.WaitGroup
		const reads = 20
		for i := range reads {
			key := fmt.Sprint("/together/", i)
			all.Go(func() {
				if _, err := client.Put(ctx, key, key); err != nil {
					t.Error(err)
				}
				resp, err := l.ReadUntil(ctx, IsFinal, wire.KeyRead(key))
				if err != nil || string(wire.Got(resp, 0).Value) != key {
					t.Errorf("%s: %v, %v", key, resp, err)
				}
				client.Delete(ctx, key)
			})
		}
		for n := 0; n < reads; {
			req := <-slow.asked
			most = max(most, len(req.Success))
			n += len(req.Success)
		}
		close(slow.answered)
		all.Wait()
	}
}
