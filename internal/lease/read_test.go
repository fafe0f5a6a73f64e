package lease

import (
	"context"
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
