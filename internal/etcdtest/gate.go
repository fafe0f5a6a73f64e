package etcdtest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// A Verdict says what becomes of one request.
type Verdict int

// The verdicts. Those that hold something leave the client without an answer, so that it times out.
const (
	Pass        Verdict = iota
	HoldRequest         // applied when the gate is opened, if ever
	HoldAnswer          // applied now, the answer is lost
	Fail                // not applied, answered with Unavailable
	FailApplied         // applied, answered with Unavailable
)

// A Gate is a proxy for etcd's RPCs that makes the outcome of single requests unknown: it goes on with a request when
// the client has given up on it.
type Gate struct {
	listener net.Listener
	server   *grpc.Server
	conn     *grpc.ClientConn
	ctx      context.Context
	open     chan struct{}
	openOnce sync.Once
	late     sync.WaitGroup

	mu    sync.Mutex
	judge func(method string, req any) Verdict
}

// raw passes messages on as the bytes they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

// NewGate returns a gate in front of an endpoint. It ends with the test; what is still held is then dropped.
func NewGate(t testing.TB, endpoint string) *Gate {
	t.Helper()
	_, target, _ := strings.Cut(endpoint, "://")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gate{listener: listener, conn: conn, ctx: ctx, open: make(chan struct{})}
	g.server = grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(g.handle))
	served := make(chan struct{})
	go func() { g.server.Serve(listener); close(served) }()
	t.Cleanup(func() {
		cancel()
		g.server.Stop()
		<-served
		g.late.Wait()
		conn.Close()
	})
	return g
}

// Endpoint returns where the gate listens.
func (g *Gate) Endpoint() string { return "http://" + g.listener.Addr().String() }

// Intercept sets what decides on requests; nil passes everything. Method is the RPC's name alone, such as "Txn". Req is
// the decoded request of the writes that locks make, else nil. It must not block.
func (g *Gate) Intercept(judge func(method string, req any) Verdict) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.judge = judge
}

// Open lets everything through that was held by HoldRequest and waits until it has been answered; held requests that
// come later pass at once.
func (g *Gate) Open() {
	g.openOnce.Do(func() { close(g.open) })
	g.late.Wait()
}

func (g *Gate) verdict(method string, req []byte) Verdict {
	g.mu.Lock()
	judge := g.judge
	g.mu.Unlock()
	if judge == nil {
		return Pass
	}
	return judge(method, decode(method, req))
}

// decode returns the requests that tests look into.
func decode(method string, data []byte) any {
	var m proto.Message
	switch method {
	case "Txn":
		m = &pb.TxnRequest{}
	case "LeaseGrant":
		m = &pb.LeaseGrantRequest{}
	case "LeaseRevoke":
		m = &pb.LeaseRevokeRequest{}
	default:
		return nil
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return nil
	}
	return m
}

func (g *Gate) handle(_ any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	method := full[strings.LastIndexByte(full, '/')+1:]
	in, _ := metadata.FromIncomingContext(stream.Context())
	if method == "Watch" || method == "LeaseKeepAlive" {
		return g.stream(full, in, stream)
	}
	var req []byte
	if err := stream.RecvMsg(&req); err != nil {
		return err
	}
	verdict := g.verdict(method, req)
	switch verdict {
	case Fail:
		return status.Error(codes.Unavailable, "the gate refuses")
	case HoldRequest:
		g.late.Go(func() {
			select {
			case <-g.open:
				g.forward(full, in, req)
			case <-g.ctx.Done():
			}
		})
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	}
	resp, err := g.forward(full, in, req)
	switch {
	case verdict == HoldAnswer:
		<-stream.Context().Done()
		return status.FromContextError(stream.Context().Err()).Err()
	case verdict == FailApplied:
		return status.Error(codes.Unavailable, "the gate lost the answer")
	case err != nil:
		return err
	}
	return stream.SendMsg(&resp)
}

// forward makes a request for as long as the gate lives.
func (g *Gate) forward(full string, md metadata.MD, req []byte) (resp []byte, err error) {
	err = g.conn.Invoke(metadata.NewOutgoingContext(g.ctx, md), full, &req, &resp)
	return resp, err
}

// stream passes a stream on in both directions.
func (g *Gate) stream(full string, md metadata.MD, down grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(down.Context(), md))
	defer cancel()
	up, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, full)
	if err != nil {
		return err
	}
	go func() {
		for {
			var m []byte
			if down.RecvMsg(&m) != nil {
				up.CloseSend()
				return
			}
			if up.SendMsg(&m) != nil {
				return
			}
		}
	}()
	for {
		var m []byte
		if err := up.RecvMsg(&m); err != nil {
			return err
		}
		if err := down.SendMsg(&m); err != nil {
			return err
		}
	}
}
