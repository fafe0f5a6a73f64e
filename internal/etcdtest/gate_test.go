package etcdtest

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// gated returns a gate to a new etcd, a client through it, and one beside it.
func gated(t *testing.T) (g *Gate, through, beside *clientv3.Client) {
	t.Helper()
	s := Start(t)
	g, through = s.Gated(t)
	return g, through, s.Client(t)
}

// on returns a hook with this verdict on messages of type M and Pass on others.
func on[M proto.Message](v Verdict) Hook {
	return func(_ string, message proto.Message) Verdict {
		if _, ok := message.(M); ok {
			return v
		}
		return Pass
	}
}

// impatient returns a context that ends soon.
func impatient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(Context(t), 30*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// code returns an error's code. The client turns a timeout into context's error only if it notices
// it first.
func code(err error) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

func TestGatePasses(t *testing.T) {
	g, through, _ := gated(t)
	ctx := Context(t)
	var methods []string
	g.Intercept(func(method string, message proto.Message) Verdict {
		methods = append(methods, method)
		if put, ok := message.(*pb.PutRequest); ok && string(put.Key) != "a" {
			t.Errorf("put of %q", put.Key)
		}
		return Pass
	})
	events := through.Watch(ctx, "a", clientv3.WithCreatedNotify())
	<-events
	mustPut(t, through, "a", "1")
	if event := <-events; string(event.Events[0].Kv.Value) != "1" {
		t.Errorf("event %v", event)
	}
	lease, err := through.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if renewed, err := through.KeepAliveOnce(ctx, lease.ID); err != nil || renewed.TTL != 60 {
		t.Errorf("renewal: %v, %v", renewed, err)
	}
	if _, err := through.KeepAliveOnce(ctx, 12345); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("renewal of no lease: %v", err)
	}
	if _, err := through.Get(ctx, "a", clientv3.WithRev(100)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("etcd's own error: %v", err)
	}
	g.Intercept(nil)
	if len(methods) < 5 || methods[0] != "/etcdserverpb.Watch/Watch" || methods[1] != "/etcdserverpb.KV/Put" {
		t.Errorf("seen: %q", methods)
	}
}

func TestGateHoldRequest(t *testing.T) {
	g, through, beside := gated(t)
	g.Intercept(on[*pb.TxnRequest](HoldRequest))
	_, err := through.Txn(impatient(t)).Then(clientv3.OpPut("a", "1")).Commit()
	if code(err) != codes.DeadlineExceeded {
		t.Errorf("the client got %v", err)
	}
	h := g.AwaitHeld(t)
	if txn, ok := h.Request.(*pb.TxnRequest); !ok || len(txn.Success) != 1 || h.Method != "/etcdserverpb.KV/Txn" || h.Answer != nil {
		t.Errorf("held: %+v", h)
	}
	if got := value(t, beside, "a"); got != "" {
		t.Error("carried out while held")
	}
	if err := h.Release(); err != nil {
		t.Errorf("release: %v", err)
	}
	if got := value(t, beside, "a"); got != "1" {
		t.Errorf("after the release a = %q", got)
	}
	mustPut(t, beside, "a", "2")
	if err := h.Release(); err != nil || value(t, beside, "a") != "2" {
		t.Errorf("released twice: carried out twice, or %v", err)
	}
}

func TestGateHoldRequestOfPatientClient(t *testing.T) {
	g, through, _ := gated(t)
	g.Intercept(on[*pb.PutRequest](HoldRequest))
	put := putting(t, through, "a")
	h := g.AwaitHeld(t)
	unanswered(t, put)
	h.Release()
	if err := <-put; err != nil {
		t.Error(err)
	}
}

func TestGateReleaseTellsEtcdsError(t *testing.T) {
	g, through, beside := gated(t)
	ctx := Context(t)
	lease, err := through.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	g.Intercept(on[*pb.PutRequest](HoldRequest))
	through.Put(impatient(t), "a", "1", clientv3.WithLease(lease.ID))
	h := g.AwaitHeld(t)
	if _, err := beside.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(); rpctypes.Error(err) != rpctypes.ErrLeaseNotFound {
		t.Errorf("a put under a revoked lease: %v", err)
	}
}

func TestGateHoldAnswer(t *testing.T) {
	g, through, beside := gated(t)
	g.Intercept(on[*pb.LeaseGrantRequest](HoldAnswer))
	type granted struct {
		lease *clientv3.LeaseGrantResponse
		err   error
	}
	result := make(chan granted, 1)
	ctx := Context(t)
	go func() {
		lease, err := through.Grant(ctx, 60)
		result <- granted{lease, err}
	}()
	h := g.AwaitHeld(t)
	id := h.Answer.(*pb.LeaseGrantResponse).ID
	if ttl, err := beside.TimeToLive(ctx, clientv3.LeaseID(id)); err != nil || ttl.TTL <= 0 {
		t.Errorf("not granted yet: %v, %v", ttl, err)
	}
	select {
	case r := <-result:
		t.Errorf("answered: %+v", r)
	case <-time.After(30 * time.Millisecond):
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	if r := <-result; r.err != nil || int64(r.lease.ID) != id {
		t.Errorf("the client got %+v, held was lease %x", r, id)
	}
}

func TestGateHoldAnswerForEver(t *testing.T) {
	g, through, beside := gated(t)
	g.Intercept(on[*pb.PutRequest](HoldAnswer))
	ctx, cancel := context.WithCancel(Context(t))
	go func() {
		g.AwaitHeld(t)
		cancel()
	}()
	if _, err := through.Put(ctx, "a", "1"); !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	if got := value(t, beside, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
}

func TestGateFailures(t *testing.T) {
	for name, test := range map[string]struct {
		verdict Verdict
		code    codes.Code
		applied string
	}{
		"Fail":        {Fail, codes.Unavailable, ""},
		"FailApplied": {FailApplied, codes.Unavailable, "1"},
		"Drop":        {Drop, codes.DeadlineExceeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g, through, beside := gated(t)
			mustPut(t, through, "before", "") // connected
			g.Intercept(on[*pb.PutRequest](test.verdict))
			ctx, cancel := context.WithTimeout(Context(t), 200*time.Millisecond)
			defer cancel()
			if _, err := through.Put(ctx, "a", "1"); code(err) != test.code {
				t.Errorf("the client got %v", err)
			}
			if got := value(t, beside, "a"); got != test.applied {
				t.Errorf("a = %q, want %q", got, test.applied)
			}
		})
	}
}

func TestGateInterceptAnswers(t *testing.T) {
	g, through, beside := gated(t)
	g.InterceptAnswers(func(_ string, message proto.Message) Verdict {
		if txn, ok := message.(*pb.TxnResponse); ok && txn.Succeeded {
			return FailApplied
		}
		return Pass
	})
	ctx := Context(t)
	create := func() (*clientv3.TxnResponse, error) {
		return through.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("a"), "=", 0)).Then(clientv3.OpPut("a", "1")).Commit()
	}
	if _, err := create(); code(err) != codes.Unavailable {
		t.Errorf("the transaction that succeeded: %v", err)
	}
	if txn, err := create(); err != nil || txn.Succeeded {
		t.Errorf("the one that did not: %v, %v", txn, err)
	}
	if got := value(t, beside, "a"); got != "1" {
		t.Errorf("a = %q", got)
	}
}

func TestGateRenewals(t *testing.T) {
	g, through, _ := gated(t)
	ctx := Context(t)
	lease, err := through.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	renew := func(ctx context.Context) <-chan error {
		result := make(chan error, 1)
		go func() {
			_, err := through.KeepAliveOnce(ctx, lease.ID)
			result <- err
		}()
		return result
	}
	g.Intercept(on[*pb.LeaseKeepAliveRequest](HoldRequest))
	renewal := renew(ctx)
	h := g.AwaitHeld(t)
	unanswered(t, renewal)
	h.Release()
	if err := <-renewal; err != nil {
		t.Errorf("released request: %v", err)
	}

	g.Intercept(nil)
	g.InterceptAnswers(on[*pb.LeaseKeepAliveResponse](HoldAnswer))
	renewal = renew(ctx)
	h = g.AwaitHeld(t)
	if h.Answer.(*pb.LeaseKeepAliveResponse).TTL != 60 {
		t.Errorf("held: %+v", h)
	}
	unanswered(t, renewal)
	h.Release()
	if err := <-renewal; err != nil {
		t.Errorf("released answer: %v", err)
	}

	g.InterceptAnswers(on[*pb.LeaseKeepAliveResponse](Drop))
	if err := <-renew(impatient(t)); code(err) != codes.DeadlineExceeded {
		t.Errorf("dropped answer: %v", err)
	}
}

// TestGateStreamFails ends a watch's stream; the client resumes it, and misses nothing.
func TestGateStreamFails(t *testing.T) {
	for name, set := range map[string]func(g *Gate, hook Hook){
		"request": (*Gate).Intercept,
		"answer":  (*Gate).InterceptAnswers,
	} {
		t.Run(name, func(t *testing.T) {
			g, through, beside := gated(t)
			failed := 0
			set(g, func(method string, _ proto.Message) Verdict {
				if method == pb.Watch_Watch_FullMethodName && failed == 0 {
					failed++
					if name == "answer" {
						return FailApplied
					}
					return Fail
				}
				return Pass
			})
			revision := mustPut(t, beside, "a", "1")
			event := <-through.Watch(Context(t), "a", clientv3.WithRev(revision))
			if err := event.Err(); err != nil || string(event.Events[0].Kv.Value) != "1" {
				t.Errorf("%v, %v", event, err)
			}
			set(g, nil)
			if failed != 1 {
				t.Error("nothing failed")
			}
		})
	}
}

func TestGateDropsEvents(t *testing.T) {
	g, through, beside := gated(t)
	events := through.Watch(Context(t), "a", clientv3.WithCreatedNotify())
	<-events
	g.InterceptAnswers(func(_ string, message proto.Message) Verdict {
		if watch, ok := message.(*pb.WatchResponse); ok && len(watch.Events) > 0 && string(watch.Events[0].Kv.Value) == "lost" {
			return Drop
		}
		return Pass
	})
	mustPut(t, beside, "a", "lost")
	mustPut(t, beside, "a", "seen")
	if event := <-events; string(event.Events[0].Kv.Value) != "seen" {
		t.Errorf("got %v", event)
	}
}

func TestGateAuth(t *testing.T) {
	s := Start(t)
	s.EnableAuth(t, "secret")
	g := NewGate(t, s.Endpoint())
	worker := g.Dial(t, s.AddUser(t, "worker", "pw", "lock"))
	mustPut(t, worker, "lock", "")
	if _, err := worker.Put(Context(t), "other", ""); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("put of another key: %v", err)
	}
	g.Intercept(on[*pb.PutRequest](HoldRequest))
	worker.Put(impatient(t), "lock", "late")
	if err := g.AwaitHeld(t).Release(); err != nil {
		t.Errorf("a held request has lost its user: %v", err)
	}
}

// TestGateMutex runs etcd's own lock through the gate: every RPC it uses works.
func TestGateMutex(t *testing.T) {
	_, through, beside := gated(t)
	ctx := Context(t)
	var mutexes [2]*concurrency.Mutex
	for i, client := range []*clientv3.Client{through, beside} {
		session, err := concurrency.NewSession(client)
		if err != nil {
			t.Fatal(err)
		}
		defer session.Close()
		mutexes[i] = concurrency.NewMutex(session, "lock")
	}
	if err := mutexes[0].Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := mutexes[1].TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Errorf("beside: %v", err)
	}
	if err := mutexes[0].Unlock(ctx); err != nil {
		t.Error(err)
	}
	if err := mutexes[1].Lock(ctx); err != nil {
		t.Error(err)
	}
}

// TestHeldForNobody: a message is held also if the client has given up before, as where etcd was
// slow.
func TestHeldForNobody(t *testing.T) {
	const n = 100
	g := &Gate{ctx: t.Context(), held: make(chan *Held, n)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range n {
		g.hold(ctx, &Held{})
	}
	if len(g.held) != n {
		t.Errorf("of %d messages %d are held", n, len(g.held))
	}
}
