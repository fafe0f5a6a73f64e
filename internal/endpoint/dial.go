package endpoint

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/etcdlock/etcdlock/internal/balance"
)

// Dial returns a client that logs in when that is needed, and not more often. Nothing is sent yet.
// Limit is how long a login may take.
func (o *Options) Dial(ctx context.Context, c clientv3.Config, limit time.Duration) (*clientv3.Client, error) {
	if c.Username != "" {
		a := &account{read: o.readAgain, user: c.Username, password: c.Password, part: limit, limit: limit}
		if n := len(c.Endpoints); n > 1 {
			a.part = min(firstLogin, limit/time.Duration(n))
		}
		c.Username, c.Password = "", ""
		c.DialOptions = append(c.DialOptions, grpc.WithChainUnaryInterceptor(a.unary), grpc.WithChainStreamInterceptor(a.stream))
	}
	if c.TLS != nil {
		c.DialOptions = append(c.DialOptions, grpc.WithTransportCredentials(newTransport(o.CACert, c.TLS)))
	}
	c.DialOptions = append(c.DialOptions, balance.DialOptions()...)
	c.Context = ctx
	return clientv3.New(c)
}

// Unreached returns why a client has no connection, nil if it has one, or if that is not known: a
// request that has waited for a connection until its time was over does not tell. Nothing is sent:
// without a connection gRPC itself refuses a request that does not wait for one. This one is the
// login, which does not wait for a login either.
func Unreached(client *clientv3.Client) error {
	conn := client.ActiveConnection()
	if conn.GetState() != connectivity.TransientFailure {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{}, grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		return nil
	}
	return errors.New(status.Convert(err).Message())
}

// How long one of several members may take for a login: at first 20 times what checking a password
// takes it, and at most.
const (
	firstLogin = 1250 * time.Millisecond
	longLogin  = 5 * time.Second
)

// readAgain returns user and password as they are now. What is not a file, such as a pipe,
// cannot be read again.
func (o *Options) readAgain() (user, password string, err error) {
	if o.PasswordFile != "" {
		info, err := os.Stat(o.PasswordFile)
		if err != nil || !info.Mode().IsRegular() {
			return "", "", cmp.Or(err, errors.ErrUnsupported)
		}
	}
	return o.credentials()
}
