package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
)

// Server is a real etcd inside the test binary.
type Server struct {
	Access
	port *port
	etcd *embed.Etcd
	grpc chan *grpc.Server
	once sync.Once
}

// Start starts an etcd for one test and stops it when the test is over.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	c := newConfig(opts)
	c.Dir = t.TempDir()
	s, err := startServer(t, c)
	if err != nil {
		t.Fatalf("cannot start etcd: %v", err)
	}
	t.Cleanup(s.Stop)
	return s
}

func startServer(t testing.TB, c config) (*Server, error) {
	p, err := reservePort()
	if err != nil {
		return nil, err
	}
	c.ClientAddr = p.addr.String()
	s := &Server{port: p, grpc: make(chan *grpc.Server, 1)}
	if err := s.launch(&c); err != nil {
		p.release()
		return nil, err
	}
	ctx, cancel := untilDeadline(t)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) launch(c *config) (err error) {
	if err := c.makeFiles(c.Dir); err != nil {
		return err
	}
	if s.Access, err = newAccess(c); err != nil {
		return err
	}
	e := c.embed()
	e.ServiceRegister = func(g *grpc.Server) { s.grpc <- g }
	s.etcd, err = embed.StartEtcd(e)
	return err
}

func (s *Server) ready(ctx context.Context) error {
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case err := <-s.etcd.Err():
		return err
	case <-s.etcd.Server.StopNotify():
		return errors.New("it stopped at once")
	case <-ctx.Done():
		return fmt.Errorf("not ready: %w", ctx.Err())
	}
}

// Stop ends the server for good. Without it the server ends with its test.
func (s *Server) Stop() {
	s.once.Do(func() {
		// Close alone gives open streams (watches, renewals) several seconds to end by themselves.
		select {
		case g := <-s.grpc:
			g.Stop()
		default:
		}
		s.etcd.Close()
		s.port.release()
	})
}

// shared is the one server that all tests of a package may use.
var shared struct {
	sync.Mutex
	hooked bool // Main is going to stop it
	dir    string
	server *Server
}

// Shared returns the server that the tests of this package share; the first call starts it, [Main]
// stops it. Tests that run at the same time must keep to keys of their own, and must not call
// [Access.Empty].
func Shared(t testing.TB) *Server {
	t.Helper()
	server, err := share(t)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// SharedEndpoint returns the endpoint of the [Shared] server, for examples, which have no test to
// fail: it panics.
func SharedEndpoint() string {
	server, err := share(nil)
	if err != nil {
		panic(err)
	}
	return server.Endpoint()
}

// share returns the shared server, started by the deadline of t, if there is a t.
func share(t testing.TB) (*Server, error) {
	shared.Lock()
	defer shared.Unlock()
	if !shared.hooked {
		return nil, errors.New("etcdtest.Shared needs etcdtest.Main in TestMain")
	}
	if shared.server != nil {
		return shared.server, nil
	}
	dir, err := os.MkdirTemp("", "etcdtest-")
	if err != nil {
		return nil, err
	}
	c := newConfig(nil)
	c.Dir = dir
	server, err := startServer(t, c)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("cannot start etcd: %w", err)
	}
	shared.dir, shared.server = dir, server
	return server, nil
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	shared.server.Stop()
	shared.server = nil
	return os.RemoveAll(shared.dir)
}
