package etcdtest

import (
	"context"
	"errors"
	"io"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// method is one method of an etcd service.
type method struct {
	name          string
	streaming     bool
	input, output protoreflect.MessageType
}

func findMethod(name string) (*method, error) {
	full := strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(full))
	if err != nil {
		return nil, err
	}
	md, ok := descriptor.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, errors.New("not a method")
	}
	m := &method{name: name, streaming: md.IsStreamingClient() || md.IsStreamingServer()}
	if m.input, err = protoregistry.GlobalTypes.FindMessageByName(md.Input().FullName()); err != nil {
		return nil, err
	}
	m.output, err = protoregistry.GlobalTypes.FindMessageByName(md.Output().FullName())
	return m, err
}

func (g *Gate) handle(_ any, client grpc.ServerStream) error {
	name, _ := grpc.MethodFromServerStream(client)
	m, err := findMethod(name)
	if err != nil {
		return status.Errorf(codes.Unimplemented, "etcdtest: method %s: %v", name, err)
	}
	if m.streaming {
		return g.stream(m, client)
	}
	return g.unary(m, client)
}

// withMetadata returns ctx with what the client sent along, such as its auth token.
func withMetadata(ctx context.Context, client grpc.ServerStream) context.Context {
	md, _ := metadata.FromIncomingContext(client.Context())
	return metadata.NewOutgoingContext(ctx, md)
}

func (g *Gate) unary(m *method, client grpc.ServerStream) error {
	request := m.input.New().Interface()
	if err := client.RecvMsg(request); err != nil {
		return err
	}
	apply := func(ctx context.Context) (proto.Message, error) {
		answer := m.output.New().Interface()
		if err := g.conn.Invoke(withMetadata(ctx, client), m.name, request, answer); err != nil {
			return nil, err
		}
		return answer, nil
	}
	ctx := client.Context()
	var answer proto.Message
	var err error
	verdict := g.decide(&g.requests, m.name, request)
	switch verdict {
	case Pass:
		answer, err = apply(ctx)
	case HoldRequest:
		answer, err = g.hold(ctx, &Held{Method: m.name, Request: request,
			apply: func() (proto.Message, error) { return apply(g.ctx) }})
	case HoldAnswer, FailApplied, NoSpaceApplied:
		answer, err = apply(g.ctx) // it must be carried out even if the client gives up meanwhile
	case Drop:
		return g.drop(ctx)
	case Fail:
		return errUnavailable
	case TooMany:
		return rpctypes.ErrGRPCRequestTooManyRequests
	default:
		return g.misused(m.name, verdict)
	}
	if verdict == Pass && err == nil {
		verdict = g.decide(&g.answers, m.name, answer)
	}
	return g.answer(m, client, verdict, request, answer, err)
}

// answer sends, or does not send, the answer to a single request.
func (g *Gate) answer(m *method, client grpc.ServerStream, verdict Verdict, request, answer proto.Message, err error) error {
	switch verdict {
	case Pass, HoldRequest:
	case HoldAnswer:
		reply, replyErr := answer, err // Release may read them after the client gave up
		answer, err = g.hold(client.Context(), &Held{Method: m.name, Request: request, Answer: reply,
			apply: func() (proto.Message, error) { return reply, replyErr }})
	case Drop:
		return g.drop(client.Context())
	case FailApplied:
		return errUnavailable
	case NoSpaceApplied:
		return rpctypes.ErrGRPCNoSpace
	default:
		return g.misused(m.name, verdict)
	}
	if err != nil {
		return err
	}
	return client.SendMsg(answer)
}

func (g *Gate) stream(m *method, client grpc.ServerStream) error {
	ctx, cancel := context.WithCancelCause(withMetadata(client.Context(), client))
	defer cancel(nil)
	defer context.AfterFunc(g.ctx, func() { cancel(errUnavailable) })()
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	server, err := g.conn.NewStream(ctx, both, m.name)
	if err != nil {
		return err
	}
	g.workers.Go(func() {
		// The answers end when the context does, and that ends the stream.
		if err := g.forwardRequests(ctx, m, server, client); err != nil {
			cancel(err)
		}
	})
	err = g.forwardAnswers(ctx, m, client, server)
	if cause := context.Cause(ctx); cause != nil && client.Context().Err() == nil {
		return cause
	}
	return err
}

func (g *Gate) forwardRequests(ctx context.Context, m *method, server grpc.ClientStream, client grpc.ServerStream) error {
	for {
		request := m.input.New().Interface()
		if err := client.RecvMsg(request); errors.Is(err, io.EOF) {
			return server.CloseSend()
		} else if err != nil {
			return err
		}
		switch verdict := g.decide(&g.requests, m.name, request); verdict {
		case Pass:
		case HoldRequest:
			if _, err := g.hold(ctx, &Held{Method: m.name, Request: request, apply: sentOff}); err != nil {
				return err
			}
		case Drop:
			continue
		case Fail:
			return errUnavailable
		default:
			return g.misused(m.name, verdict)
		}
		if err := server.SendMsg(request); err != nil {
			return nil // why it broke, the answers tell
		}
	}
}

func (g *Gate) forwardAnswers(ctx context.Context, m *method, client grpc.ServerStream, server grpc.ClientStream) error {
	for {
		answer := m.output.New().Interface()
		if err := server.RecvMsg(answer); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		switch verdict := g.decide(&g.answers, m.name, answer); verdict {
		case Pass:
		case HoldAnswer:
			if _, err := g.hold(ctx, &Held{Method: m.name, Answer: answer, apply: sentOff}); err != nil {
				return err
			}
		case Drop:
			continue
		case FailApplied:
			return errUnavailable
		default:
			return g.misused(m.name, verdict)
		}
		if err := client.SendMsg(answer); err != nil {
			return err
		}
	}
}

// sentOff is the release of a message on a stream: the stream itself goes on with it.
func sentOff() (proto.Message, error) { return nil, nil }

// hold keeps h until it is released or ctx ends.
func (g *Gate) hold(ctx context.Context, h *Held) (proto.Message, error) {
	h.done = make(chan struct{})
	select {
	case g.held <- h: // also if the client has given up by now
	default: // nobody asks for so many
	}
	select {
	case <-h.done:
		return h.reply, h.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-g.ctx.Done():
		return nil, errUnavailable
	}
}

// drop waits until the client gives up. The client's deadline is known here as well, and may be
// noticed here first: then this is what the client gets to see.
func (g *Gate) drop(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-g.ctx.Done():
		return errUnavailable
	}
}

var errUnavailable = status.Error(codes.Unavailable, "etcdtest: failed by the gate")

func (g *Gate) decide(hook *Hook, method string, message proto.Message) Verdict {
	g.mu.Lock()
	defer g.mu.Unlock()
	if *hook == nil {
		return Pass
	}
	return (*hook)(method, message)
}

func (g *Gate) misused(method string, v Verdict) error {
	g.t.Errorf("etcdtest: verdict %d does not apply to this message of %s", v, method)
	return status.Error(codes.Internal, "etcdtest: verdict does not apply")
}
