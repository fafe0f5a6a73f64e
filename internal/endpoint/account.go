package endpoint

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// An account logs in with a password when the first request needs it, and again when etcd does not
// accept the token any more. All requests wait for the same login: checking a password costs etcd
// more than a thousand requests, and its own client logs in for each stream and for each request
// that is repeated.
type account struct {
	read  func() (user, password string, err error)
	part  time.Duration // how long the first member that is asked may take
	limit time.Duration // how long all of them may take

	mu       sync.Mutex
	user     string // that could be read last
	password string
	again    bool   // there was a login
	token    *token // nil: a login is needed
	refusal  *refusal
	under    *attempt // the login that is under way
}

// A token is what etcd gave for a password. It is empty where etcd knows no users.
type token struct{ is string }

// A refusal is a login that etcd has refused.
type refusal struct {
	user, password string
	err            error
	at             time.Time
}

// againAfter is when a login that was refused is tried again with the same password.
const againAfter = time.Second

// credentials reads the password again, unless this is the first login, and returns what etcd has
// said of it a moment ago, if it has refused it. It may take as long as the file system does.
func (a *account) credentials() (user, password string, refused error) {
	a.mu.Lock()
	again := a.again
	a.again = true
	a.mu.Unlock()
	var err error
	if again {
		user, password, err = a.read()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if again && err == nil {
		a.user, a.password = user, password
	}
	if r := a.refusal; r != nil && r.user == a.user && r.password == a.password && time.Since(r.at) < againAfter {
		refused = r.err
	}
	return a.user, a.password, refused
}

// An attempt is a login that is under way.
type attempt struct {
	done  chan struct{} // closed when it is over; then the rest is set
	token *token
	err   error
}

// unary makes a request with the token, and once more if the token was of no use any more.
func (a *account) unary(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, do grpc.UnaryInvoker, options ...grpc.CallOption) error {
	if method == pb.Auth_Authenticate_FullMethodName {
		return do(ctx, method, request, answer, conn, options...)
	}
	for again := true; ; again = false {
		t, err := a.get(ctx, conn)
		if err != nil {
			return err
		}
		if err = do(t.add(ctx), method, request, answer, conn, options...); !isStale(err) {
			return err
		}
		if a.forget(t); !again {
			return err
		}
	}
}

func (a *account) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, do grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	t, err := a.get(ctx, conn)
	if err != nil {
		return nil, err
	}
	s, err := do(t.add(ctx), desc, conn, method, options...)
	if err != nil {
		if isStale(err) {
			a.forget(t)
		}
		return nil, err
	}
	return &accountStream{s, a, t}, nil
}

// An accountStream is a stream that tells when etcd does not accept its token.
type accountStream struct {
	grpc.ClientStream
	account *account
	token   *token
}

// RecvMsg receives a message.
func (s *accountStream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if answer, ok := message.(*pb.WatchResponse); isStale(err) || ok && slices.Contains(stale, answer.CancelReason) {
		s.account.forget(s.token)
	}
	return err
}

func (t *token) add(ctx context.Context) context.Context {
	if t.is == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, t.is)
}

// stale are the answers that say that another login is needed, as they come and in a watch.
var stale = func() (texts []string) {
	for _, err := range []error{rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision, rpctypes.ErrGRPCUserEmpty} {
		texts = append(texts, rpctypes.ErrorDesc(err), err.Error())
	}
	return texts
}()

func isStale(err error) bool { return err != nil && slices.Contains(stale, rpctypes.ErrorDesc(err)) }

// forget takes note that a token is of no use any more.
func (a *account) forget(t *token) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token == t {
		a.token = nil
	}
}

// get returns the token, or waits for the login that is under way. It begins one if no login is.
func (a *account) get(ctx context.Context, conn *grpc.ClientConn) (*token, error) {
	a.mu.Lock()
	if t := a.token; t != nil {
		a.mu.Unlock()
		return t, nil
	}
	if a.under == nil {
		a.under = &attempt{done: make(chan struct{})}
		go a.login(a.under, conn)
	}
	under := a.under
	a.mu.Unlock()
	select {
	case <-under.done:
		return under.token, under.err
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// login is one attempt. What etcd has refused a moment ago it is not asked again.
func (a *account) login(under *attempt, conn *grpc.ClientConn) {
	user, password, refused := a.credentials()
	if under.err = refused; refused == nil {
		under.token, under.err = a.ask(conn, user, password)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.under, a.token = nil, under.token
	if refused == nil {
		a.refusal = nil
		if code := status.Code(under.err); code == codes.InvalidArgument || code == codes.FailedPrecondition {
			a.refusal = &refusal{user, password, under.err, time.Now()}
		}
	}
	close(under.done)
}

// ask asks one member after another. One that is busy with many logins has more time when it is
// asked again: more would only be asked for at once what takes all of them long.
func (a *account) ask(conn *grpc.ClientConn, user, password string) (*token, error) {
	end := time.Now().Add(a.limit)
	for part := a.part; ; part = min(2*part, longLogin) {
		ctx, cancel := context.WithTimeout(context.Background(), min(part, time.Until(end)))
		answer, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: password})
		cancel()
		switch {
		case err == nil:
			return &token{answer.Token}, nil
		case rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthNotEnabled):
			return &token{}, nil
		case status.Code(err) != codes.DeadlineExceeded || time.Until(end) <= 0:
			return nil, err
		}
	}
}
