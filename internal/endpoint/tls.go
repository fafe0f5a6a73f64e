package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"strings"
	"sync"

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

// authorities are the credentials of a client that trusts whom a file names. It is read for each
// connection: certificates are renewed while a lock is held, and come from a new authority then.
type authorities struct {
	credentials.TransportCredentials // as the file was at first
	file                             string

	mu     sync.Mutex
	config *tls.Config // as it could be read last
}

func newAuthorities(file string, config *tls.Config) *authorities {
	return &authorities{TransportCredentials: credentials.NewTLS(config), file: file, config: config}
}

// ClientHandshake is what TLS does, with the file as it is now.
func (a *authorities) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(a.read()).ClientHandshake(ctx, authority, conn)
}

func (a *authorities) read() *tls.Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	if pool, err := readAuthorities(a.file); err == nil && pool != nil {
		a.config = a.config.Clone()
		a.config.RootCAs = pool
	}
	return a.config
}

// Clone returns the same credentials: nothing in them is of one connection.
func (a *authorities) Clone() credentials.TransportCredentials { return a }

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

// misfits are what the client says where TLS is not as it has to be, and what to do about that. A
// handshake that is cut off or hangs does not count: an etcd that stands still does the same.
var misfits = []struct{ says, hint string }{
	{"x509: ", "etcd's certificate is not accepted: --cacert names the authority that it is checked with, -e a host that it is for, and it expires"},
	{"remote error: tls: ", "etcd wants another certificate of the client: --cert and --cert-key"},
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
