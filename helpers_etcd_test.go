package etcdlock_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	v3lockpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
)

// newWorker turns authentication on, and adds the user "worker", who may take some locks. It
// returns what the clients of that user need.
func newWorker(t testing.TB, s *etcdtest.Server, locks ...string) clientv3.Config {
	t.Helper()
	config := s.AddUser(t, "worker", "pass", locks...)
	s.EnableAuth(t, "secret")
	return config
}

// permit changes what the user of newWorker may do with a key or, if that ends in a slash, with all
// below it.
func permit(t testing.TB, s *etcdtest.Server, key string, what authpb.Permission_Type) {
	t.Helper()
	end := ""
	if strings.HasSuffix(key, "/") {
		end = clientv3.GetPrefixRangeEnd(key)
	}
	must(t)(s.Client(t).RoleGrantPermission(etcdtest.Context(t), "worker", key, end, clientv3.PermissionType(what)))
}

// kindOf names the requests that locks make.
func kindOf(method string, request proto.Message) string {
	switch r := request.(type) {
	case *pb.LeaseGrantRequest:
		return "grant"
	case *pb.LeaseRevokeRequest:
		return "revoke"
	case *pb.LeaseKeepAliveRequest:
		return "renew"
	case *pb.WatchRequest:
		return "watch"
	case *pb.TxnRequest:
		switch kind := kind.Of(r); {
		case kind == "Batch" && len(besidesNotes(r)) == 1:
			return kindOf(method, besidesNotes(r)[0])
		case strings.HasPrefix(kind, "Claim"):
			return "Claim"
		case strings.HasSuffix(kind, "Read"):
			return "Read"
		default:
			return kind
		}
	}
	return method
}

// every is for intercept: every request of a kind.
const every = math.MaxInt

// joins are the kinds of requests that take a place in line.
var joins = []string{"Acquire", "AcquireIfFree"}

// verdicts are the ways in which the outcome of a write can be unknown.
var verdicts = map[string]etcdtest.Verdict{
	"request held": etcdtest.HoldRequest,
	"answer held":  etcdtest.HoldAnswer,
	"lost":         etcdtest.Drop,
	"failed":       etcdtest.Fail,
	"failed, done": etcdtest.FailApplied,
}

// forVerdicts runs a test with each verdict on each of some kinds of requests, on an etcd of its
// own.
func forVerdicts(t *testing.T, kinds []string, test func(t *testing.T, s *etcdtest.Server, kind string, verdict etcdtest.Verdict)) {
	t.Helper()
	for _, kind := range kinds {
		for name, verdict := range verdicts {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, etcdtest.Start(t), kind, verdict)
			})
		}
	}
}

// besidesNotes returns what is in a batch besides the notes of locks that are held for a second:
// they may come along with anything.
func besidesNotes(batch *pb.TxnRequest) (others []*pb.TxnRequest) {
	for _, op := range batch.Success {
		if one := op.GetRequestTxn(); !strings.HasSuffix(kind.Of(one), "Since") {
			others = append(others, one)
		}
	}
	return others
}

// intercept gives the verdict to the next n requests of some kinds, and lets all others pass. What
// it returns receives once for each of those requests.
func intercept(gate *etcdtest.Gate, n int, v etcdtest.Verdict, kinds ...string) (hits <-chan struct{}) {
	c := make(chan struct{}, 1000)
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		if n <= 0 || !slices.Contains(kinds, kindOf(method, request)) {
			return etcdtest.Pass
		}
		n--
		select {
		case c <- struct{}{}:
		default: // enough for every test
		}
		return v
	})
	return c
}

// A census counts what clients ask of etcd behind a gate.
type census struct {
	*etcdtest.Gate
	ranges                  atomic.Int64 // how often a whole line was read
	claims                  atomic.Int64 // that have a line compared if the lock is free
	history                 atomic.Int64 // how often a key was read as it had been
	gets                    atomic.Int64 // of single keys, each also where several go together
	writes, reads, renewals atomic.Int64

	watched sync.Map // the keys that were to be watched, each with true
}

// newCensus returns a client whose requests are counted.
func newCensus(t testing.TB, s *etcdtest.Server) (*clientv3.Client, *census) {
	t.Helper()
	gate, client := s.Gated(t)
	n := &census{Gate: gate}
	gate.Intercept(n.count)
	return client, n
}

// count is the census's hook.
func (n *census) count(_ string, request proto.Message) etcdtest.Verdict {
	switch r := request.(type) {
	case *pb.LeaseKeepAliveRequest:
		n.renewals.Add(1)
	case *pb.TxnRequest:
		if len(r.Compare) > 0 || kind.Of(r) == "Batch" {
			n.writes.Add(1)
		} else {
			n.reads.Add(1)
		}
		if last := len(r.Compare) - 1; last >= 0 && r.Compare[last].RangeEnd != nil && r.Compare[last].Result == pb.Compare_GREATER {
			n.claims.Add(1)
		}
		for _, op := range r.Success {
			get := op.GetRequestRange()
			if get != nil && get.RangeEnd != nil && (get.Limit == 0 || get.SortOrder != pb.RangeRequest_NONE) {
				n.ranges.Add(1)
			}
			if get != nil && get.RangeEnd == nil {
				n.gets.Add(1)
			}
			if get.GetRevision() != 0 {
				n.history.Add(1)
			}
		}
	case *pb.RangeRequest:
		n.reads.Add(1)
	case *pb.WatchRequest:
		if create := r.GetCreateRequest(); create != nil {
			n.watched.Store(string(create.Key), true)
		}
	}
	return etcdtest.Pass
}

// watches reports whether a key was to be watched.
func (n *census) watches(key string) bool {
	_, was := n.watched.Load(key)
	return was
}

// A place is somebody's place in the line of a lock.
type place struct {
	key   string
	lease clientv3.LeaseID
}

// placeOf returns the place of an id in the line of a lock.
func placeOf(t testing.TB, client *clientv3.Client, key, id string) place {
	t.Helper()
	for _, kv := range etcdtest.Keys(t, client, key+"/") {
		if strings.Contains(string(kv.Value), `"id":"`+id+`"`) {
			return place{string(kv.Key), clientv3.LeaseID(kv.Lease)}
		}
	}
	t.Fatalf("%q is not in line", id)
	return place{}
}

// awaitKeys waits until there are n keys with a prefix. Where a lease that nobody renews has to run
// out, that takes its time.
func awaitKeys(t testing.TB, client *clientv3.Client, prefix string, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d keys with prefix %q", n, prefix), func() (bool, any) {
		keys := etcdtest.Keys(t, client, prefix)
		return len(keys) == n, keys
	})
}

// applied reports whether etcd applies a transaction under a comparison.
func applied(t testing.TB, client *clientv3.Client, cmp clientv3.Cmp) bool {
	t.Helper()
	resp, err := client.Txn(etcdtest.Context(t)).If(cmp).Then(clientv3.OpPut("/applied", "x")).Commit()
	if err != nil {
		t.Fatal(err)
	}
	return resp.Succeeded
}

// revisionOf returns etcd's present revision.
func revisionOf(t testing.TB, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(etcdtest.Context(t), "any")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// history returns what became of a key from a revision on, as "id" for a put and "-" for a
// deletion.
func history(t testing.TB, client *clientv3.Client, key string, from int64) (all []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	events := client.Watch(ctx, key, clientv3.WithRev(from))
	for last := revisionOf(t, client); ; {
		if err := client.RequestProgress(ctx); err != nil {
			t.Fatal(err)
		}
		resp := <-events
		if resp.Err() != nil {
			t.Fatal(resp.Err())
		}
		for _, e := range resp.Events {
			if e.Type == clientv3.EventTypeDelete {
				all = append(all, "-")
			} else {
				all = append(all, string(e.Kv.Value))
			}
		}
		if resp.IsProgressNotify() && resp.Header.Revision >= last {
			return all
		}
	}
}

// A contender is one way of getting the lock and giving it back.
type contender struct {
	lock   func(context.Context) (token int64, err error)
	unlock func(context.Context) error
}

// The kinds of contenders.
const (
	mutex   = iota // a Mutex of etcd's client
	service        // etcd's lock service
	ours           // a Lock
	contenderKinds
)

// newContender returns a contender of a kind. It locks again and again under one key.
func newContender(t testing.TB, client *clientv3.Client, key string, kind int) contender {
	t.Helper()
	if kind == ours {
		l := newLock(t, client, key, "ours")
		lock := func(ctx context.Context) (int64, error) {
			held, err := l.Lock(ctx)
			return held.Token(), err
		}
		return contender{lock, l.Unlock}
	}
	s, err := concurrency.NewSession(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if kind == mutex {
		m := concurrency.NewMutex(s, key)
		lock := func(ctx context.Context) (int64, error) {
			if err := m.Lock(ctx); err != nil {
				return 0, err
			}
			return m.Header().Revision, nil
		}
		return contender{lock, m.Unlock}
	}
	c := v3lockpb.NewLockClient(client.ActiveConnection())
	var place []byte
	lock := func(ctx context.Context) (int64, error) {
		resp, err := c.Lock(ctx, &v3lockpb.LockRequest{Name: []byte(key), Lease: int64(s.Lease())})
		if err != nil {
			return 0, err
		}
		place = resp.Key
		return resp.Header.Revision, nil
	}
	unlock := func(ctx context.Context) error {
		_, err := c.Unlock(ctx, &v3lockpb.UnlockRequest{Key: place})
		return err
	}
	return contender{lock, unlock}
}
