package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Access is the way into an etcd, the same for a server, a process and a cluster.
type Access struct {
	endpoints []string
	certs     *Certs
	tls       *tls.Config
	auth      *rootAccount
}

// rootAccount is shared by all copies of an Access.
type rootAccount struct {
	sync.Mutex
	password string // empty: authentication is off
}

func (r *rootAccount) set(password string) {
	r.Lock()
	defer r.Unlock()
	r.password = password
}

func newAccess(configs ...*config) (Access, error) {
	a := Access{auth: &rootAccount{}}
	for _, c := range configs {
		u := c.clientURL()
		a.endpoints = append(a.endpoints, u.String())
		a.certs = c.Certs
	}
	if a.certs == nil {
		return a, nil
	}
	var err error
	a.tls, err = a.certs.clientTLS()
	return a, err
}

// Endpoint returns the client URL, of a cluster that of its first member.
func (a *Access) Endpoint() string { return a.endpoints[0] }

// Endpoints returns the client URLs of all members.
func (a *Access) Endpoints() []string { return slices.Clone(a.endpoints) }

// Certs returns the files behind TLS, nil without it.
func (a *Access) Certs() *Certs { return a.certs }

// Config returns what a client needs to get in, as root once [Access.EnableAuth] was called. Change
// it at will, for example its Endpoints to lead through a [Link] or its user, and give it to
// [Dial].
func (a *Access) Config() clientv3.Config {
	a.auth.Lock()
	defer a.auth.Unlock()
	c := clientv3.Config{Endpoints: a.Endpoints(), TLS: a.tls}
	if a.auth.password != "" {
		c.Username, c.Password = "root", a.auth.password
	}
	return c
}

// Client returns a client of its own for this test.
func (a *Access) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return Dial(t, a.Config())
}

// Gated returns a gate to the first endpoint, and a client behind it.
func (a *Access) Gated(t testing.TB) (*Gate, *clientv3.Client) {
	t.Helper()
	gate := NewGate(t, a.Endpoint())
	return gate, gate.Dial(t, a.Config())
}

// Linked returns a link to the first endpoint, and a client behind it.
func (a *Access) Linked(t testing.TB) (*Link, *clientv3.Client) {
	t.Helper()
	link := NewLink(t, a.Endpoint())
	return link, dialAt(t, a.Config(), link.Endpoint())
}

// Dial returns a client that is closed when the test is over. It reconnects quickly and logs
// nothing, unless config says otherwise.
func Dial(t testing.TB, config clientv3.Config) *clientv3.Client {
	t.Helper()
	client, err := newClient(config)
	if err != nil {
		t.Fatalf("cannot connect to etcd: %v", err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// dialAt is Dial for a client that knows one endpoint only.
func dialAt(t testing.TB, config clientv3.Config, endpoint string) *clientv3.Client {
	t.Helper()
	config.Endpoints = []string{endpoint}
	return Dial(t, config)
}

func newClient(config clientv3.Config) (*clientv3.Client, error) {
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	quick := grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 100 * time.Millisecond},
		MinConnectTimeout: time.Second,
	})
	config.DialOptions = append([]grpc.DialOption{quick}, config.DialOptions...)
	return clientv3.New(config)
}

// EnableAuth turns authentication on. From then on Config and Client are root's.
func (a *Access) EnableAuth(t testing.TB, rootPassword string) {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	client := a.Client(t)
	_, err := client.UserAdd(ctx, "root", rootPassword)
	if err == nil {
		_, err = client.UserGrantRole(ctx, "root", "root")
	}
	if err == nil {
		_, err = client.AuthEnable(ctx)
	}
	if err != nil {
		t.Fatalf("cannot enable authentication: %v", err)
	}
	a.auth.set(rootPassword)
}

// AddUser adds a user who may read and write each of the locks: the key itself and everything below
// key/, no more. It returns what a client of that user needs to get in once authentication is on.
func (a *Access) AddUser(t testing.TB, name, password string, locks ...string) clientv3.Config {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	if err := addUser(ctx, a.Client(t), name, password, locks); err != nil {
		t.Fatalf("cannot add user %q: %v", name, err)
	}
	c := a.Config()
	c.Username, c.Password = name, password
	return c
}

func addUser(ctx context.Context, client *clientv3.Client, name, password string, locks []string) error {
	readWrite := clientv3.PermissionType(clientv3.PermReadWrite)
	if _, err := client.RoleAdd(ctx, name); err != nil {
		return err
	}
	for _, key := range locks {
		if _, err := client.RoleGrantPermission(ctx, name, key, "", readWrite); err != nil {
			return err
		}
		below := key + "/"
		if _, err := client.RoleGrantPermission(ctx, name, below, clientv3.GetPrefixRangeEnd(below), readWrite); err != nil {
			return err
		}
	}
	if _, err := client.UserAdd(ctx, name, password); err != nil {
		return err
	}
	_, err := client.UserGrantRole(ctx, name, name)
	return err
}

// Alarm turns etcd's alarm on or off that its space is exceeded: while it is on, etcd takes nothing
// but deletions.
func (a *Access) Alarm(t testing.TB, on bool) {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	client := a.Client(t)
	request := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	if on {
		request.Action = pb.AlarmRequest_ACTIVATE
	}
	err := poll(ctx, func(ctx context.Context) error {
		status, err := client.Status(ctx, a.Endpoint())
		if err == nil {
			request.MemberID = status.Header.MemberId
			_, err = pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(ctx, request)
		}
		return err
	})
	if err != nil {
		t.Fatalf("cannot turn the alarm on or off: %v", err)
	}
}

// Token returns a token of a user: see [WithTokens].
func (a *Access) Token(t testing.TB, name, password string) string {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	answer, err := a.Client(t).Authenticate(ctx, name, password)
	if err != nil {
		t.Fatalf("no token for user %q: %v", name, err)
	}
	return answer.Token
}

// Empty fails the test if a key or a lease is left, and says which. It looks once: who ends cleanly
// has removed both before saying so.
func (a *Access) Empty(t testing.TB) {
	t.Helper()
	ctx, cancel := untilDeadline(t)
	defer cancel()
	left, err := leftovers(ctx, a.Client(t))
	if err != nil {
		t.Fatalf("cannot tell what is left in etcd: %v", err)
	}
	if len(left) > 0 {
		t.Errorf("left in etcd:\n\t%s", strings.Join(left, "\n\t"))
	}
}

func leftovers(ctx context.Context, client *clientv3.Client) ([]string, error) {
	var left []string
	keys, err := client.Get(ctx, "", clientv3.WithFromKey())
	if err != nil {
		return nil, err
	}
	for _, kv := range keys.Kvs {
		left = append(left, fmt.Sprintf("key %q = %q, lease %x", kv.Key, kv.Value, kv.Lease))
	}
	leases, err := client.Leases(ctx)
	if err != nil {
		return nil, err
	}
	for _, lease := range leases.Leases {
		left = append(left, fmt.Sprintf("lease %x", int64(lease.ID)))
	}
	return left, nil
}
