// Package embedded runs a real etcd as a lock server for one machine. It is the only importer of
// the etcd server.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/etcdlock/etcdlock/internal/serverdir"
)

// lookEvery is the time between two looks at what a server has in its directory.
const lookEvery = time.Second

// settle is for how long new clients are watched for between the decision to leave and leaving.
const settle = 100 * time.Millisecond

// A Server is an etcd that answers.
type Server struct {
	Endpoint string

	socket  string
	verbose bool
	owner   *serverdir.Owner
	level   zap.AtomicLevel
	etcd    *embed.Etcd
	grpc    chan *grpc.Server
	clients clients
}

// Start runs an etcd in a directory, with the file that serverdir.Take has locked there, and
// returns when it answers. Etcd says errors, or all it has to say, if verbose.
func Start(ctx context.Context, dir string, lock *os.File, verbose bool) (*Server, error) {
	owner, err := serverdir.Own(dir, lock)
	if err != nil {
		return nil, err
	}
	s := &Server{owner: owner, verbose: verbose, level: zap.NewAtomicLevelAt(zap.ErrorLevel), grpc: make(chan *grpc.Server, 4)}
	if verbose {
		s.level.SetLevel(zap.DebugLevel)
	}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	socket, err := s.owner.Socket()
	if err != nil {
		return err
	}
	u := url.URL{Scheme: "unix", Path: socket}
	s.socket, s.Endpoint = socket, serverdir.Endpoint(socket)
	// The socket is reachable through a directory that is its owner's alone, and mode 0600 besides.
	if s.etcd, err = embed.StartEtcd(s.config(u)); err != nil {
		return fmt.Errorf("starting etcd on the data in %q: %w", s.owner.Data(), err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return err
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return s.owner.Publish(s.Endpoint)
	case err := <-s.etcd.Err():
		return fmt.Errorf("starting etcd: %w", err)
	case <-s.etcd.Server.StopNotify():
		return errors.New("starting etcd: it stopped at once")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// config is etcd's, for a lock server with one member: nothing to elect against, little to keep,
// nothing to say.
func (s *Server) config(u url.URL) *embed.Config {
	c := embed.NewConfig()
	c.Name = "etcdlock"
	c.Dir = s.owner.Data()
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{u}
	c.AdvertiseClientUrls = []url.URL{u}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	// The only member is elected as soon as it waits no longer for others. Leases get 1 s at least
	// from these.
	c.TickMs, c.ElectionMs = 10, 100
	c.EnableGRPCGateway = false
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	c.SnapshotCount = 1000
	c.LogLevel = "error"
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.logger())
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.StatsHandler(&s.clients)}
	c.ServiceRegister = func(g *grpc.Server) {
		select {
		case s.grpc <- g:
		default:
		}
	}
	return c
}

// logger writes to stderr, one line each. In the background that is the log in the directory.
func (s *Server) logger() *zap.Logger {
	c := zap.NewProductionConfig()
	c.Level = s.level
	c.Encoding = "console"
	c.DisableStacktrace = true
	trim := func(zapcore.Entry) error { return s.owner.TrimLog() }
	l, err := c.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return quiet{core} }), zap.Hooks(trim))
	if err != nil {
		return zap.NewNop()
	}
	return l
}

// quiet drops an error that every new etcd reports until its first snapshot, and that means
// nothing.
type quiet struct{ zapcore.Core }

func (q quiet) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Message == "failed to update storage version" {
		return checked
	}
	return q.Core.Check(e, checked)
}

func (q quiet) With(fields []zapcore.Field) zapcore.Core { return quiet{q.Core.With(fields)} }

// Wait blocks until ctx is done, etcd fails or is of no use any more (then it returns the error),
// or there was no client and no lease for idleExit; 0 means that it never leaves by itself.
func (s *Server) Wait(ctx context.Context, idleExit time.Duration) error {
	var idle <-chan time.Time
	if idleExit > 0 {
		ticker := time.NewTicker(max(idleExit/10, time.Millisecond))
		defer ticker.Stop()
		idle = ticker.C
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	busy := time.Now()
	for {
		select {
		case <-look.C:
			if err := s.stays(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case err := <-s.etcd.Err():
			return err
		case <-s.etcd.Server.StopNotify():
			return errors.New("etcd stopped by itself")
		case now := <-idle:
			if !s.isIdle(ctx) {
				busy = now
			} else if now.Sub(busy) >= idleExit && s.left(ctx) {
				return nil
			}
		}
	}
}

// stays returns an error if the server is of no use any more. Where its directory has gone, nobody
// can come any more, and nobody else can have a server until it ends: that it does when its last
// lease ends. Where its socket has gone, another one can serve the same data.
func (s *Server) stays(ctx context.Context) error {
	if s.owner.Removed() {
		if s.hasLeases(ctx) {
			return nil
		}
		return errors.New("its directory was removed or renamed")
	}
	if _, err := os.Lstat(s.socket); err != nil {
		return fmt.Errorf("its socket was removed: %w", err)
	}
	if !s.owner.Published() {
		return s.owner.Publish(s.Endpoint)
	}
	return nil
}

// hasLeases reports whether there are any, or that is not known.
func (s *Server) hasLeases(ctx context.Context) bool {
	leases, err := s.etcd.Server.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	return err != nil || len(leases.Leases) > 0
}

// isIdle reports whether there is no client and no lease.
func (s *Server) isIdle(ctx context.Context) bool {
	if s.clients.connected.Load() > 0 {
		return false
	}
	return !s.hasLeases(ctx)
}

// left withdraws the endpoint and reports whether nobody who had read it before has come after all.
func (s *Server) left(ctx context.Context) bool {
	if s.owner.Withdraw() != nil {
		return false
	}
	time.Sleep(settle)
	if s.isIdle(ctx) {
		return true
	}
	return s.owner.Publish(s.Endpoint) != nil
}

// Close ends the server and leaves the directory to others.
func (s *Server) Close() error {
	err := s.owner.Withdraw()
	if s.etcd != nil {
		if !s.verbose {
			s.level.SetLevel(zap.FatalLevel) // what breaks off now was told to
		}
		// Close alone lets open streams (watches, renewals) have several seconds to end by
		// themselves.
		select {
		case g := <-s.grpc:
			g.Stop()
		default:
		}
		s.etcd.Close()
	}
	return errors.Join(err, s.owner.Close())
}

// clients counts connections.
type clients struct{ connected atomic.Int64 }

func (*clients) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*clients) HandleRPC(context.Context, stats.RPCStats)                         {}
func (*clients) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn counts.
func (c *clients) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.connected.Add(1)
	case *stats.ConnEnd:
		c.connected.Add(-1)
	}
}
