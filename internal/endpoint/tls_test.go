package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
func shake(t *testing.T, a *transport, name string, cert tls.Certificate) error {
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
	a := newTransport(file, c.TLS).Clone().(*transport)
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

// A lateReader is a connection on which nothing is read, once hands are shaken, until a write has
// failed.
type lateReader struct {
	net.Conn
	shaken atomic.Bool
	once   sync.Once
	failed chan struct{}
}

func (l *lateReader) Read(p []byte) (int, error) {
	if l.shaken.Load() {
		<-l.failed
	}
	return l.Conn.Read(p)
}

func (l *lateReader) Write(p []byte) (int, error) {
	n, err := l.Conn.Write(p)
	if err != nil {
		l.once.Do(func() { close(l.failed) })
	}
	return n, err
}

// TestRefusedCertificate: who writes first, before the answer to the client's certificate is read,
// is told what that answer was all the same.
func TestRefusedCertificate(t *testing.T) {
	authority, trusted := newAuthority(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(trusted), 0o600); err != nil {
		t.Fatal(err)
	}
	const name = "etcd.test"
	now := time.Now()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{signed(t, authority, name, now.Add(-time.Hour), now.Add(time.Hour))},
		NextProtos:   []string{"h2"}, ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	c, err := options(t, nil, "--cacert", file).Config()
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		dialed, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		raw := &lateReader{Conn: dialed, failed: make(chan struct{})}
		conn, _, err := newTransport(file, c.TLS).ClientHandshake(t.Context(), name, raw)
		if err != nil {
			t.Fatal(err)
		}
		raw.shaken.Store(true)
		begun := time.Now()
		go io.Copy(io.Discard, conn)
		for err == nil {
			_, err = io.WriteString(conn, "PRI * HTTP/2.0")
		}
		late := time.Since(begun) >= refusalWithin // to read, on a busy machine
		if !late && !strings.Contains(err.Error(), "remote error: tls: certificate required") {
			t.Errorf("written to a server that has refused the certificate: %v", err)
		}
		conn.Close()
	}
}

// TestMisfit: a certificate of the client is asked for where the server wants one, and not where
// something else is the matter.
func TestMisfit(t *testing.T) {
	for alert, aboutClient := range map[int]bool{
		42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 116: true,
		70: false, 80: false, 120: false,
	} {
		err := fmt.Errorf("remote error: %w", tls.AlertError(alert))
		if hint := Misfit(err); hint == "" || (hint == wantsAnother) != aboutClient {
			t.Errorf("%v: %s", err, hint)
		}
	}
}
