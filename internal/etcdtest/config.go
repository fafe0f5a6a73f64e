package etcdtest

import (
	"cmp"
	"crypto/rand"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// Option changes how an etcd is started.
type Option func(*config)

// WithStockTicks gives etcd its default raft timing: heartbeat 100 ms, election timeout 1 s,
// shortest lease 2 s.
func WithStockTicks() Option {
	return func(c *config) { c.TickMs, c.ElectionMs = 100, 1000 }
}

// WithTLS makes the server serve TLS only, with files made for this test: see [Access.Certs].
func WithTLS() Option {
	return func(c *config) { c.TLS = true }
}

// WithClientCerts is WithTLS, and clients must show a certificate of the same authority.
func WithClientCerts() Option {
	return func(c *config) { c.TLS, c.ClientCerts = true, true }
}

// WithTokens makes the tokens of users JSON web tokens that expire after whole seconds.
func WithTokens(expiry time.Duration) Option {
	return func(c *config) { c.Tokens = expiry }
}

// WithSync lets etcd sync what it writes to disk, as it does by default.
func WithSync() Option {
	return func(c *config) { c.Sync = true }
}

// WithMaxTxnOps lets etcd take so many operations in a transaction, and not 128.
func WithMaxTxnOps(n uint) Option {
	return func(c *config) { c.MaxTxnOps = n }
}

// WithQuota bounds the space that etcd takes, in bytes, below its usual 2 GiB.
func WithQuota(bytes int64) Option {
	return func(c *config) { c.Quota = bytes }
}

// WithPeerLinks leads what the members of a cluster send to each other through links: see
// [Cluster.PeerLink].
func WithPeerLinks() Option {
	return func(c *config) { c.PeerLinks = true }
}

// config is everything a member must be told; it travels to another process as JSON.
type config struct {
	Name       string
	Dir        string
	ClientAddr string
	PeerAddr   string // empty: no peer listener
	PeerVia    string // where the other members find it
	Cluster    string // all members as name=url,...; empty: the only one

	TickMs, ElectionMs uint
	TLS, ClientCerts   bool
	Sync, PeerLinks    bool
	MaxTxnOps          uint          // 0: etcd's default
	Quota              int64         // 0: etcd's default
	Tokens             time.Duration // 0: they are not JSON web tokens
	TokenKey           string        // the file with the key by which tokens are signed
	Certs              *Certs
	LogLevel           string
}

// newConfig returns the settings of a single member. With these ticks its first election, the
// longest part of its start, takes less than 100 ms. One member has nobody to lose an election to,
// however late it ticks.
func newConfig(opts []Option) config {
	c := config{Name: "m0", TickMs: 10, ElectionMs: 50, LogLevel: "fatal"}
	return c.with(opts)
}

// newMemberConfig returns the settings of a member of a cluster. Its election timeout is about the
// longest that allows leases of 1 s: with a shorter one a busy machine changes its leader at
// random.
func newMemberConfig(opts []Option) config {
	c := config{TickMs: 60, ElectionMs: 600, LogLevel: "fatal"}
	return c.with(opts)
}

func (c config) with(opts []Option) config {
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

func (c *config) clientURL() url.URL {
	if c.TLS {
		return url.URL{Scheme: "https", Host: c.ClientAddr}
	}
	return url.URL{Scheme: "http", Host: c.ClientAddr}
}

// makeFiles makes the files that the settings ask for. The members of a cluster share theirs.
func (c *config) makeFiles(dir string) (err error) {
	if c.TLS && c.Certs == nil {
		if c.Certs, err = newCerts(dir); err != nil {
			return err
		}
	}
	if c.Tokens > 0 && c.TokenKey == "" {
		c.TokenKey = filepath.Join(dir, "token-key")
		err = os.WriteFile(c.TokenKey, []byte(rand.Text()), 0o600)
	}
	return err
}

// dataDir is below Dir, so that it can be emptied without the certificates.
func (c *config) dataDir() string { return filepath.Join(c.Dir, "data") }

func (c *config) embed() *embed.Config {
	e := embed.NewConfig()
	e.Name = c.Name
	e.Dir = c.dataDir()
	e.TickMs, e.ElectionMs = c.TickMs, c.ElectionMs
	e.UnsafeNoFsync = !c.Sync
	e.QuotaBackendBytes = c.Quota
	e.MaxTxnOps = cmp.Or(c.MaxTxnOps, e.MaxTxnOps)
	e.EnableGRPCGateway = false
	e.LogLevel = c.LogLevel
	e.LogOutputs = []string{"stderr"}

	// The ports are reserved by a socket that is bound to them: see port.
	e.SocketOpts.ReusePort = true
	e.SocketOpts.ReuseAddress = true
	e.ListenClientUrls = []url.URL{c.clientURL()}
	e.AdvertiseClientUrls = e.ListenClientUrls
	if c.Tokens > 0 {
		e.AuthToken = "jwt,sign-method=HS256,ttl=" + c.Tokens.String() + ",priv-key=" + c.TokenKey
	}
	if c.PeerAddr != "" {
		e.ListenPeerUrls = []url.URL{{Scheme: "http", Host: c.PeerAddr}}
		e.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: c.PeerVia}}
		e.InitialCluster = c.Cluster
	} else {
		e.ListenPeerUrls = nil
		e.InitialCluster = e.InitialClusterFromName(c.Name)
	}
	if c.TLS {
		e.ClientTLSInfo = transport.TLSInfo{
			CertFile: c.Certs.ServerCert, KeyFile: c.Certs.ServerKey, ClientCertAuth: c.ClientCerts,
		}
		if c.ClientCerts {
			e.ClientTLSInfo.TrustedCAFile = c.Certs.CA // etcd takes it as a demand for certificates
		}
	}
	return e
}
