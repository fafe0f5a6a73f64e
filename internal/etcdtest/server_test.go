package etcdtest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/v3"
)

func TestServer(t *testing.T) {
	began := time.Now()
	s := Start(t)
	t.Logf("started in %v", time.Since(began))
	client := s.Client(t)
	ctx := Context(t)
	if _, err := client.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	t.Logf("first put after %v", time.Since(began))
	members, err := client.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := members.Members[0].ClientURLs[0]; got != s.Endpoint() {
		t.Errorf("the member advertises %s, its endpoint is %s", got, s.Endpoint())
	}
	if u, _ := url.Parse(s.Endpoint()); dials(u.Host) != nil {
		t.Errorf("cannot connect to %s", u.Host)
	}
}

func TestServerStopsWithOpenStreams(t *testing.T) {
	var endpoint string
	t.Run("server", func(t *testing.T) {
		s := Start(t)
		endpoint = s.Endpoint()
		client, err := newClient(s.Config())
		if err != nil {
			t.Fatal(err)
		}
		// Registered before the next cleanup, so it runs after it.
		t.Cleanup(func() { client.Close() })
		created := client.Watch(clientv3.WithRequireLeader(Context(t)), "a", clientv3.WithCreatedNotify())
		<-created
		t.Cleanup(func() {
			began := time.Now()
			s.Stop()
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("stopping took %v", took)
			}
		})
	})
	u, _ := url.Parse(endpoint)
	if err := dials(u.Host); err == nil {
		t.Error("the server outlived its test")
	}
}

func TestShortestLease(t *testing.T) {
	for name, test := range map[string]struct {
		opts []Option
		want int64
	}{
		"fast":  {nil, 1},
		"stock": {[]Option{WithStockTicks()}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			lease, err := Start(t, test.opts...).Client(t).Grant(Context(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			if lease.TTL != test.want {
				t.Errorf("granted %d s, want %d", lease.TTL, test.want)
			}
		})
	}
}

func TestSharedIsOne(t *testing.T) {
	var first, second *Server
	t.Run("first", func(t *testing.T) { first = Shared(t) })
	t.Run("second", func(t *testing.T) { second = Shared(t) })
	if first != second {
		t.Error("two servers")
	}
	if _, err := second.Client(t).Get(Context(t), "a"); err != nil {
		t.Error("it did not survive the first test:", err)
	}
}

func TestSharedLeavesNothing(t *testing.T) {
	t.Run("used", func(t *testing.T) { Shared(t) })
	dir := shared.dir
	if err := stopShared(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory of the stopped server: %v", err)
	}
}

func TestEmpty(t *testing.T) {
	s := Start(t)
	client, ctx := s.Client(t), Context(t)
	s.Empty(t)

	lease, err := client.Grant(ctx, 60)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(ctx, client); err != nil || len(left) != 1 {
		t.Errorf("with a lease: %q, %v", left, err)
	}
	if _, err := client.Put(ctx, "\x00", "", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if left, err := leftovers(ctx, client); err != nil || len(left) != 2 {
		t.Errorf("with a lease and the lowest key: %q, %v", left, err)
	}
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	s.Empty(t)
}

func TestAuth(t *testing.T) {
	s := Start(t)
	ctx := Context(t)
	stranger := s.Client(t)
	s.EnableAuth(t, "secret")
	config := s.AddUser(t, "worker", "pw", "lock")

	if _, err := stranger.Get(ctx, "lock"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("without a name: %v", err)
	}
	worker := Dial(t, config)
	for key, want := range map[string]error{
		"lock": nil, "lock/x": nil,
		"loc": rpctypes.ErrPermissionDenied, "lock0": rpctypes.ErrPermissionDenied,
	} {
		if _, err := worker.Put(ctx, key, ""); !errors.Is(err, want) {
			t.Errorf("put %q: %v, want %v", key, err, want)
		}
	}
	config.Password = "wrong"
	if client, err := newClient(config); !errors.Is(err, rpctypes.ErrAuthFailed) {
		t.Errorf("wrong password: %v, %v", client, err)
	}
	if _, err := s.Client(t).Delete(ctx, "", clientv3.WithFromKey()); err != nil {
		t.Errorf("as root: %v", err)
	}
	s.Empty(t)
}

func TestTLS(t *testing.T) {
	s := Start(t, WithTLS())
	ctx := Context(t)
	if _, err := s.Client(t).Put(ctx, "a", ""); err != nil {
		t.Fatal(err)
	}
	trusting := tlsConfig(t, s.Certs().CA)
	if err := handshake(s, trusting); err != nil {
		t.Errorf("without a client certificate: %v", err)
	}
	var unknown *tls.CertificateVerificationError
	if err := handshake(s, tlsConfig(t, s.Certs().StrangeCA)); !errors.As(err, &unknown) {
		t.Errorf("trusting another authority: %v", err)
	}
}

func TestClientCerts(t *testing.T) {
	s := Start(t, WithClientCerts())
	if _, err := s.Client(t).Put(Context(t), "a", ""); err != nil {
		t.Fatal(err)
	}
	if err := handshake(s, tlsConfig(t, s.Certs().CA)); err == nil {
		t.Error("let in without a client certificate")
	}
}

// handshake connects and reads, as a TLS 1.3 server refuses a client only after the handshake.
func handshake(s *Server, config *tls.Config) error {
	u, _ := url.Parse(s.Endpoint())
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", u.Host, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

func tlsConfig(t *testing.T, caFile string) *tls.Config {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", caFile)
	}
	return &tls.Config{RootCAs: roots}
}

func dials(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
