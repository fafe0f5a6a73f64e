package keepalive

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// login is what it takes to open a stream.
const login = 70 * time.Millisecond

// first is the first try's time.
const first = time.Second

// An etcd renews leases: those whose number is not too high.
type etcd struct {
	pb.UnimplementedLeaseServer
	ctx     context.Context // of those who ask
	client  *clientv3.Client
	valid   boottime.Instant // until when the leases are valid that are asked for
	highest atomic.Int64
	logins  atomic.Int64
	asking  sync.WaitGroup
}

// LeaseKeepAlive is called for each stream.
func (e *etcd) LeaseKeepAlive(s pb.Lease_LeaseKeepAliveServer) error {
	e.logins.Add(1)
	time.Sleep(login)
	for {
		r, err := s.Recv()
		switch {
		case err != nil:
			return err
		case r.ID > e.highest.Load():
			return rpctypes.ErrGRPCPermissionDenied
		}
		if err := s.Send(&pb.LeaseKeepAliveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: 10}); err != nil {
			return err
		}
	}
}

// renew renews a lease, and returns how long that took.
func (e *etcd) renew(id clientv3.LeaseID) (time.Duration, error) {
	began := time.Now()
	_, err := Renew(e.ctx, e.client, id, e.valid, first, func(error) {})
	return time.Since(began), err
}

// ask renews leases in the background, one after the other.
func (e *etcd) ask(from, to clientv3.LeaseID, then func(clientv3.LeaseID, error)) {
	for id := from; id <= to; id++ {
		e.asking.Go(func() {
			_, err := e.renew(id)
			then(id, err)
		})
		synctest.Wait()
	}
}

// withEtcd runs a test in a bubble of time. Leases up to the highest are renewed.
func withEtcd(t *testing.T, highest int64, test func(t *testing.T, e *etcd)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := &etcd{ctx: ctx}
		e.highest.Store(highest)
		listener, server := bufconn.Listen(1<<16), grpc.NewServer(grpc.WaitForHandlers(true))
		pb.RegisterLeaseServer(server, e)
		var serving sync.WaitGroup
		serving.Go(func() { server.Serve(listener) })
		defer serving.Wait()
		defer server.Stop()
		var err error
		e.client, err = clientv3.New(clientv3.Config{Endpoints: []string{"etcd"}, Logger: zap.NewNop(), DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.client.Close()
		defer EndIdle(e.client)
		defer Keep(e.client, first)()
		defer e.asking.Wait()
		defer cancel()
		test(t, e)
	})
}

// TestDeniedAgain: leases that are denied each time do not hold up another one, and cost a login a
// second. When they are not denied any more, they are renewed like the other one.
func TestDeniedAgain(t *testing.T) {
	withEtcd(t, 1, func(t *testing.T, e *etcd) {
		const denied, seconds = 20, 30
		var permitted atomic.Int64
		e.ask(2, 1+denied, func(id clientv3.LeaseID, err error) {
			for retry.IsDenied(err) {
				time.Sleep(time.Second)
				_, err = e.renew(id)
			}
			if err == nil {
				permitted.Add(1)
			}
		})
		time.Sleep(2 * denied * login)
		if _, err := e.renew(1); err != nil {
			t.Fatal(err)
		}
		e.logins.Store(0)
		for range seconds {
			if took, err := e.renew(1); took > 0 || err != nil {
				t.Fatalf("a renewal took %v: %v", took, err)
			}
			time.Sleep(time.Second)
		}
		if n := e.logins.Load(); n == 0 || n > seconds {
			t.Errorf("%d logins in %d seconds", n, seconds)
		}
		e.highest.Store(1 + denied)
		time.Sleep(2*time.Second + 2*login)
		e.logins.Store(0)
		for id := range clientv3.LeaseID(1 + denied) {
			if took, err := e.renew(1 + id); took > 0 || err != nil {
				t.Errorf("a renewal of %d took %v: %v", 1+id, took, err)
			}
		}
		if n, logins := permitted.Load(), e.logins.Load(); n != denied || logins > 0 {
			t.Errorf("%d of %d are renewed again, %d logins", n, denied, logins)
		}
		e.highest.Store(denied)
		for range 2 {
			if _, err := e.renew(1 + denied); !retry.IsDenied(err) {
				t.Errorf("the renewal of the last one: %v", err)
			}
		}
		if took, err := e.renew(denied); took > login || err != nil {
			t.Errorf("the renewal of the last but one took %v: %v", took, err)
		}
	})
}

// TestDeniedFirst: each lease that is denied for the first time ends the stream of all. A lease
// waits for those that end sooner than it does, or as soon and were asked for before it, and for no
// others.
func TestDeniedFirst(t *testing.T) {
	withEtcd(t, 1, func(t *testing.T, e *etcd) {
		const later, before, behind = 20, 5, 20
		told := func(id clientv3.LeaseID, err error) {
			if !retry.IsDenied(err) {
				t.Errorf("the renewal of %d: %v", id, err)
			}
		}
		e.valid = boottime.Now().Add(time.Hour)
		e.ask(2, 1+later, told)
		e.valid = boottime.Now().Add(time.Minute)
		e.ask(2+later, 1+later+before, told)
		began := time.Now()
		e.ask(1, 1, func(_ clientv3.LeaseID, err error) {
			// The very first stream was opened before it was asked for.
			if took := time.Since(began); took > (1+before+1)*login || err != nil {
				t.Errorf("a renewal took %v: %v", took, err)
			}
		})
		e.ask(2+later+before, 1+later+before+behind, told)
		e.asking.Wait()
	})
}

// TestDeniedAll: a denial answers all who ask for the lease.
func TestDeniedAll(t *testing.T) {
	withEtcd(t, 0, func(t *testing.T, e *etcd) {
		var told atomic.Int64
		for range 3 {
			e.ask(1, 1, func(_ clientv3.LeaseID, err error) {
				if !retry.IsDenied(err) {
					t.Error(err)
				}
				told.Add(1)
			})
		}
		time.Sleep(2 * login)
		synctest.Wait()
		if logins, told := e.logins.Load(), told.Load(); logins != 1 || told != 3 {
			t.Errorf("%d are told after %d logins", told, logins)
		}
	})
}
