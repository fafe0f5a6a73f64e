package etcdtest

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
)

// Gate stands in front of an etcd, understands each RPC and can lose a single request or a single
// answer.
type Gate struct {
	t        testing.TB
	port     *port
	server   *grpc.Server
	conn     *grpc.ClientConn
	ctx      context.Context // ends with the gate; a held request outlives the client that sent it
	cancel   context.CancelFunc
	workers  sync.WaitGroup
	held     chan *Held
	mu       sync.Mutex // also held while a hook decides
	requests Hook
	answers  Hook
}

// Hook decides what becomes of a message. The method is in gRPC's form, as in
// "/etcdserverpb.KV/Txn"; the message is one of etcdserverpb, as in *etcdserverpb.TxnRequest. Calls
// of a hook do not overlap, so it may count in plain variables, but must not wait for anything.
type Hook func(method string, message proto.Message) Verdict

// Verdict is what becomes of a message.
type Verdict int

const (
	// Pass forwards it.
	Pass Verdict = iota

	// HoldRequest withholds a request until it is released. Until then the client gets no answer.
	// On a stream, later requests wait behind it.
	HoldRequest

	// HoldAnswer lets etcd carry the request out at once, but withholds the answer until it is
	// released. On a stream, later answers wait behind it; there it is a verdict on an answer only.
	HoldAnswer

	// Drop loses the request, or the answer: it is never passed on. A stream goes on with its next
	// message.
	Drop

	// Fail answers a request with code Unavailable, and etcd never sees it. On a stream that ends
	// the stream.
	Fail

	// FailApplied lets etcd carry the request out, then answers with code Unavailable. On a stream
	// that ends the stream; there it is a verdict on an answer only.
	FailApplied

	// NoSpaceApplied lets etcd carry a single request out, then answers that its space is exceeded,
	// as etcd does to the request with which it notices that.
	NoSpaceApplied

	// TooMany answers a single request with ErrTooManyRequests, and etcd never sees it.
	TooMany
)

// NewGate opens a gate to the etcd at endpoint, which must not use TLS. The gate is closed when the
// test is over, and what it holds then is lost.
func NewGate(t testing.TB, endpoint string) *Gate {
	t.Helper()
	g := &Gate{t: t, held: make(chan *Held, 1000)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if err := g.open(endpoint); err != nil {
		t.Fatalf("cannot open a gate: %v", err)
	}
	t.Cleanup(g.close)
	return g
}

func (g *Gate) open(endpoint string) (err error) {
	if strings.HasPrefix(endpoint, "https:") {
		return errors.New("it cannot speak TLS")
	}
	if g.port, err = reservePort(); err != nil {
		return err
	}
	listener, err := g.port.listen()
	if err != nil {
		g.port.release()
		return err
	}
	g.conn, err = grpc.NewClient("passthrough:///"+strings.TrimPrefix(endpoint, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.6, MaxDelay: 100 * time.Millisecond}, MinConnectTimeout: time.Second}))
	if err != nil {
		listener.Close()
		g.port.release()
		return err
	}
	g.server = grpc.NewServer(
		grpc.UnknownServiceHandler(g.handle),
		grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(math.MaxInt32),
		// As etcd does: by default gRPC would hang up on clients that ping as often as etcd's may.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
	g.workers.Go(func() { g.server.Serve(listener) })
	return nil
}

func (g *Gate) close() {
	g.cancel()
	g.server.Stop()
	g.workers.Wait()
	g.conn.Close()
	g.port.release()
}

// Endpoint returns the clients' side of the gate.
func (g *Gate) Endpoint() string { return "http://" + g.port.addr.String() }

// Dial is [Dial] for a client behind the gate, whatever endpoints config has.
func (g *Gate) Dial(t testing.TB, config clientv3.Config) *clientv3.Client {
	t.Helper()
	return dialAt(t, config, g.Endpoint())
}

// Intercept makes hook decide on every request from now on, single ones and those on streams. nil
// lets all pass.
func (g *Gate) Intercept(hook Hook) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = hook
}

// InterceptAnswers makes hook decide on answers from now on: those on streams (watch events,
// renewals), and those to single requests that were let pass and that etcd did not refuse. nil lets
// all pass.
func (g *Gate) InterceptAnswers(hook Hook) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = hook
}

// Counting returns a hook that lets all pass, and counts the requests of a method, as
// "Authenticate".
func Counting(method string) (Hook, *atomic.Int64) {
	var n atomic.Int64
	return func(name string, _ proto.Message) Verdict {
		if strings.HasSuffix(name, "/"+method) {
			n.Add(1)
		}
		return Pass
	}, &n
}

// AwaitHeld returns the next message that is being held; each is returned once, in the order in
// which they were held.
func (g *Gate) AwaitHeld(t testing.TB) *Held {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	select {
	case h := <-g.held:
		return h
	case <-ctx.Done():
		t.Fatal("waited in vain for a message to be held")
		return nil
	}
}

// Held is a message that a [Gate] holds back.
type Held struct {
	Method  string
	Request proto.Message // nil for an answer on a stream
	Answer  proto.Message // nil while a request is held, and if etcd refused it

	apply func() (proto.Message, error)
	once  sync.Once
	done  chan struct{} // closed when released; then answer and err are set
	reply proto.Message
	err   error
}

// Release lets the message go, whether or not the client is still waiting. It returns when etcd has
// carried out a held request, with etcd's error. A request on a stream is only sent off.
func (h *Held) Release() error {
	h.once.Do(func() {
		h.reply, h.err = h.apply()
		close(h.done)
	})
	return h.err
}
