package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// newAuthority makes an authority, and returns its own certificate as it is in a file.
func newAuthority(t *testing.T) (a *etcdtest.Authority, pem string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	a, err := etcdtest.NewAuthority(file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return a, string(content)
}

// signed returns the certificate of a server.
func signed(t *testing.T, by *etcdtest.Authority, name string, from, until time.Time) tls.Certificate {
	t.Helper()
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	template := etcdtest.NewTemplate(name, x509.ExtKeyUsageServerAuth)
	template.DNSNames, template.NotBefore, template.NotAfter = []string{name}, from, until
	if err := by.Sign(cert, key, template); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
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
	first, trustFirst := newAuthority(t)
	second, trustSecond := newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const name = "etcd.test"
	begun, before, later := time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	write(trustFirst)
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
		{"as it was", trustFirst, signed(t, first, name, begun, later), ""},
		{"not of this authority", trustFirst, signed(t, second, name, begun, later), "unknown authority"},
		{"of another server", trustFirst, signed(t, first, "other.test", begun, later), "not " + name},
		{"expired", trustFirst, signed(t, first, name, begun, before), "expired"},
		{"of a new authority beside the old one", trustFirst + trustSecond, signed(t, second, name, begun, later), ""},
		{"of a new authority", trustSecond, signed(t, second, name, begun, later), ""},
		{"of the old one", trustSecond, signed(t, first, name, begun, later), "unknown authority"},
		{"while the file is being written", "-----BEGIN", signed(t, second, name, begun, later), ""},
		{"of another server, with the new authority", trustSecond, signed(t, second, "other.test", begun, later), "not " + name},
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
	if err := shake(t, a, name, signed(t, second, name, begun, later)); err != nil {
		t.Errorf("without the file: %v", err)
	}
}
