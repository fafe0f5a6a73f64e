package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// tls returns the settings for TLS, nil if none were given.
func (o *Options) tls() (*tls.Config, error) {
	if o.CACert == "" && o.Cert == "" && o.Key == "" && !o.InsecureSkipVerify {
		return nil, nil
	}
	config := systemTLS()
	config.InsecureSkipVerify = o.InsecureSkipVerify
	if o.CACert != "" {
		pem, err := os.ReadFile(o.CACert)
		if err != nil {
			return nil, o.bad("cacert", "name a file with certificates in PEM form that you may read", "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, o.bad("cacert", "name a file with certificates in PEM form", "no certificate in %q", o.CACert)
		}
	}
	switch {
	case o.Cert == "" && o.Key == "":
		return config, nil
	case o.Key == "":
		return nil, o.bad("cert", "add --cert-key or ETCDCTL_KEY", "a certificate without its key")
	case o.Cert == "":
		return nil, o.bad("cert-key", "add --cert or ETCDCTL_CERT", "a key without its certificate")
	}
	if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
		return nil, o.bad("cert", "name PEM files that you may read and that belong together", "%w", err)
	}
	// Read anew for each connection: certificates are renewed while a lock is held.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		return &pair, err
	}
	return config, nil
}

func systemTLS() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
