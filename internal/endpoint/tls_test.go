package endpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An issuer signs certificates.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func template(name string, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own := template(name, time.Now().Add(time.Hour))
	own.IsCA, own.BasicConstraintsValid = true, true
	der, err := x509.CreateCertificate(rand.Reader, own, own, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if own, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &issuer{own, key}
}

func (i *issuer) sign(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template(name, until), i.cert, i.key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key}
}

// shake is the first thing that a client does on a connection to a server with a certificate.
func shake(t *testing.T, a *authorities, name string, cert tls.Certificate) error {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			io.Copy(io.Discard, conn) // which shakes hands first
			conn.Close()
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _, err = a.ClientHandshake(t.Context(), name+":2379", conn)
	return err
}

// TestAuthorities are read again for each connection, and nothing else is accepted than what they
// have signed for the server that is meant.
func TestAuthorities(t *testing.T) {
	first, second := newIssuer(t, "first"), newIssuer(t, "second")
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust := func(of *issuer) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of.cert.Raw}))
	}
	const name = "etcd.test"
	later, before := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	write(trust(first))
	c, err := options(t, nil, "--cacert", file).Config()
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthorities(file, c.TLS).Clone().(*authorities)
	for _, step := range []struct {
		about   string
		content string
		cert    tls.Certificate
		says    string
	}{
		{"as it was", trust(first), first.sign(t, name, later), ""},
		{"not of this authority", trust(first), second.sign(t, name, later), "unknown authority"},
		{"of another server", trust(first), first.sign(t, "other.test", later), "not " + name},
		{"expired", trust(first), first.sign(t, name, before), "expired"},
		{"of a new authority beside the old one", trust(first) + trust(second), second.sign(t, name, later), ""},
		{"of a new authority", trust(second), second.sign(t, name, later), ""},
		{"of the old one", trust(second), first.sign(t, name, later), "unknown authority"},
		{"while the file is being written", "-----BEGIN", second.sign(t, name, later), ""},
		{"of another server, with the new authority", trust(second), second.sign(t, "other.test", later), "not " + name},
	} {
		write(step.content)
		err := shake(t, a, name, step.cert)
		if step.says == "" && err != nil || step.says != "" && (err == nil || !strings.Contains(err.Error(), step.says)) {
			t.Errorf("a certificate %s: %v", step.about, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := shake(t, a, name, second.sign(t, name, later)); err != nil {
		t.Errorf("without the file: %v", err)
	}
}
