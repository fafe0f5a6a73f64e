package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tls fills in the settings for TLS, if any were given.
func (o *Options) tls(c *clientv3.Config) error {
	if o.CACert == "" && o.Cert == "" && o.Key == "" && !o.InsecureSkipVerify {
		return nil
	}
	c.TLS = systemTLS()
	c.TLS.InsecureSkipVerify = o.InsecureSkipVerify
	if o.CACert != "" {
		pem, err := os.ReadFile(o.CACert)
		if err != nil {
			return o.bad("cacert", "name a file with certificates in PEM form that you may read", "%w", err)
		}
		c.TLS.RootCAs = x509.NewCertPool()
		if !c.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return o.bad("cacert", "name a file with certificates in PEM form", "no certificate in %q", o.CACert)
		}
	}
	return o.clientCert(c.TLS)
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
