package etcdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certs names the PEM files of a server with TLS.
type Certs struct {
	CA        string // the authority that signed the server's certificate
	StrangeCA string // one that did not
	Cert, Key string // a certificate for clients, signed by CA

	ServerCert, ServerKey string
}

func newCerts(dir string) (*Certs, error) {
	dir = filepath.Join(dir, "tls")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c := &Certs{
		CA: filepath.Join(dir, "ca.pem"), StrangeCA: filepath.Join(dir, "strange-ca.pem"),
		Cert: filepath.Join(dir, "client.pem"), Key: filepath.Join(dir, "client-key.pem"),
		ServerCert: filepath.Join(dir, "server.pem"), ServerKey: filepath.Join(dir, "server-key.pem"),
	}
	authority, err := NewAuthority(c.CA)
	if err != nil {
		return nil, err
	}
	if _, err := NewAuthority(c.StrangeCA); err != nil {
		return nil, err
	}
	if err := authority.Sign(c.ServerCert, c.ServerKey, NewTemplate("etcdtest", x509.ExtKeyUsageServerAuth)); err != nil {
		return nil, err
	}
	if err := authority.Sign(c.Cert, c.Key, NewTemplate("etcdtest", x509.ExtKeyUsageClientAuth)); err != nil {
		return nil, err
	}
	return c, nil
}

// renew has another authority sign the server's certificate, and adds it to the file of the first.
func (c *Certs) renew() error {
	file := c.CA + ".new"
	authority, err := NewAuthority(file)
	if err != nil {
		return err
	}
	var both []byte
	for _, one := range []string{c.CA, file} {
		text, err := os.ReadFile(one)
		if err != nil {
			return err
		}
		both = append(both, text...)
	}
	if err := os.WriteFile(c.CA, both, 0o600); err != nil {
		return err
	}
	return authority.Sign(c.ServerCert, c.ServerKey, NewTemplate("etcdtest", x509.ExtKeyUsageServerAuth))
}

// clientTLS returns what a client needs to trust the server and to be trusted by it.
func (c *Certs) clientTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// An Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one, and a file with its own certificate.
func NewAuthority(file string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := NewTemplate("etcdtest authority", x509.ExtKeyUsageAny)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageCertSign, nil
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, writePEM(file, "CERTIFICATE", der)
}

// Sign makes files with a certificate and its key.
func (a *Authority) Sign(certFile, keyFile string, template *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM(certFile, "CERTIFICATE", der)
}

// NewTemplate returns what a certificate for this machine says. Change it at will.
func NewTemplate(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"localhost"},
	}
}

func writePEM(file, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", kind, err)
	}
	return nil
}
