package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/credentials"
)

// tls fills in the settings for TLS, if any were given.
func (o *Options) tls(c *clientv3.Config) error {
	if o.CACert == "" && o.Cert == "" && o.Key == "" && !o.InsecureSkipVerify {
		return nil
	}
	c.TLS = systemTLS()
	c.TLS.InsecureSkipVerify = o.InsecureSkipVerify
	if o.CACert != "" {
		pool, err := readAuthorities(o.CACert)
		switch {
		case err != nil:
			return o.bad("cacert", "name a file with certificates in PEM form that you may read", "%w", err)
		case pool == nil:
			return o.bad("cacert", "name a file with certificates in PEM form", "no certificate in %q", o.CACert)
		}
		c.TLS.RootCAs = pool
	}
	return o.clientCert(c.TLS)
}

// readAuthorities reads a file with certificates. Without any in it, it returns nil.
func readAuthorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil
	}
	return pool, nil
}

// transport is TLS, and trusts whom a file names. It is read for each connection: certificates are
// renewed while a lock is held, and come from a new authority then.
type transport struct {
	credentials.TransportCredentials        // as the file was at first
	file                             string // empty: the authorities stay as they are

	mu     sync.Mutex
	config *tls.Config // as it could be read last
}

func newTransport(file string, config *tls.Config) *transport {
	return &transport{TransportCredentials: credentials.NewTLS(config), file: file, config: config}
}

// ClientHandshake is what TLS does, with the file as it is now.
func (t *transport) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := credentials.NewTLS(t.read()).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &refusable{Conn: conn, ended: make(chan struct{})}, info, nil
}

func (t *transport) read() *tls.Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pool, err := readAuthorities(t.file); err == nil && pool != nil {
		t.config = t.config.Clone()
		t.config.RootCAs = pool
	}
	return t.config
}

// Clone returns the same credentials: nothing in them is of one connection.
func (t *transport) Clone() credentials.TransportCredentials { return t }

// refusalWithin is how long a failed write waits for what has been read.
const refusalWithin = time.Second

// A refusable connection says why the other side has refused the client's certificate. With TLS
// 1.3 that comes after the handshake, as the first that is read; the first write fails at the same
// time, and knows of a broken pipe only.
type refusable struct {
	net.Conn
	end   sync.Once
	ended chan struct{} // closed when a read has failed
	why   error         // of the read; set when ended is closed
}

func (r *refusable) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err != nil {
		r.end.Do(func() { r.why = err; close(r.ended) })
	}
	return n, err
}

func (r *refusable) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	if err == nil || errors.Is(err, net.ErrClosed) {
		return n, err
	}
	select {
	case <-r.ended:
		if refused := (*net.OpError)(nil); errors.As(r.why, &refused) && refused.Op == "remote error" {
			err = r.why
		}
	case <-time.After(refusalWithin):
	}
	return n, err
}

// clientCert fills in the certificate of the client, if one was given.
func (o *Options) clientCert(config *tls.Config) error {
	switch {
	case o.Cert == "" && o.Key == "":
		return nil
	case o.Key == "":
		return o.bad("cert", "add --cert-key or ETCDCTL_KEY", "a certificate without its key")
	case o.Cert == "":
		return o.bad("cert-key", "add --cert or ETCDCTL_CERT", "a key without its certificate")
	}
	if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
		return o.bad("cert", "name PEM files that you may read and that belong together", "%w", err)
	}
	// Read anew for each connection: certificates are renewed while a lock is held.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		return &pair, err
	}
	return nil
}

func systemTLS() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }

const wantsAnother = "etcd wants another certificate of the client: --cert and --cert-key"

// misfits are what the client says where TLS is not as it has to be, and what to do about that. A
// handshake that is cut off or hangs does not count: an etcd that stands still does the same.
var misfits = []struct{ says, hint string }{
	{"x509: ", "etcd's certificate is not accepted: --cacert names the authority that it is checked with, -e a host that it is for, and it expires"},
	{"remote error: tls: certificate required", wantsAnother},
	{"remote error: tls: bad certificate", wantsAnother},
	{"remote error: tls: unsupported certificate", wantsAnother},
	{"remote error: tls: revoked certificate", wantsAnother},
	{"remote error: tls: expired certificate", wantsAnother},
	{"remote error: tls: unknown certificate", wantsAnother}, // its authority as well
	{"remote error: tls: ", "the TLS of what answers there, or what it was set up with, does not fit: check host and port, and etcd's log"},
	{"does not look like a TLS handshake", "what answers there has no TLS: check host and port"},
	{"frame too large", "what answers there is not etcd's port for clients: check it"},
}

// Misfit returns what to do where an error says that TLS is not as it has to be, else nothing.
func Misfit(err error) string {
	for _, m := range misfits {
		if strings.Contains(err.Error(), m.says) {
			return m.hint
		}
	}
	return ""
}
