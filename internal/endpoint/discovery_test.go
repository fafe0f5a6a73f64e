package endpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

// zone answers questions to DNS: records by name and type, as they stand behind their length.
type zone map[string][][]byte

const (
	typeA   = 1
	typeSRV = 33
)

func question(name string, kind uint16) string { return name + "/" + strconv.Itoa(int(kind)) }

// srv adds a record that names a host and a port.
func (z zone) srv(name, host, address string) {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	// Behind priority and weight.
	record := binary.BigEndian.AppendUint16(make([]byte, 4), uint16(port))
	for label := range strings.SplitSeq(host, ".") {
		record = append(append(record, byte(len(label))), label...)
	}
	z[question(name, typeSRV)] = append(z[question(name, typeSRV)], append(record, 0))
}

// answer returns the answer to a message with one question.
func (z zone) answer(message []byte) []byte {
	const header = 12
	var labels []string
	rest := message[header:]
	for rest[0] > 0 {
		labels = append(labels, string(rest[1:1+rest[0]]))
		rest = rest[1+rest[0]:]
	}
	asked := message[header : len(message)-len(rest)+5] // with type and class
	records := z[question(strings.Join(labels, "."), binary.BigEndian.Uint16(rest[1:]))]
	var b bytes.Buffer
	b.Write(message[:2])
	b.Write([]byte{0x81, 0x80, 0, 1, 0, byte(len(records)), 0, 0, 0, 0})
	b.Write(asked)
	for _, record := range records {
		b.Write([]byte{0xc0, header}) // the name that was asked for
		b.Write(asked[len(asked)-4:])
		b.Write([]byte{0, 0, 0, 1, 0, byte(len(record))})
		b.Write(record)
	}
	return b.Bytes()
}

// serve makes z what this process knows of DNS.
func (z zone) serve(t *testing.T) {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(z.answer(buf[:n]), from)
		}
	}()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", server.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		server.Close()
		<-ended
	})
}

// TestDiscovery: the records of a domain name a real etcd, by the rules of etcdctl's settings.
func TestDiscovery(t *testing.T) {
	secure, plain := etcdtest.Start(t, etcdtest.WithTLS()), etcdtest.Start(t)
	address := func(s *etcdtest.Server) string { _, a, _ := strings.Cut(s.Endpoint(), "://"); return a }
	loopback := [][]byte{{127, 0, 0, 1}}
	z := zone{question("elsewhere.test", typeA): loopback, question("localhost", typeA): loopback}
	z.srv("_etcd-client-ssl._tcp.both.test", "localhost", address(secure)) // its certificate's name
	z.srv("_etcd-client._tcp.both.test", "elsewhere.test", address(plain))
	z.srv("_etcd-client-ssl-blue._tcp.named.test", "localhost", address(secure))
	z.srv("_etcd-client._tcp.plain.test", "elsewhere.test", address(plain))
	z.serve(t)
	ca := secure.Certs().CA
	for name, tt := range map[string]struct {
		env  map[string]string
		says string
	}{
		"TLS is preferred":            {map[string]string{"ETCDCTL_DISCOVERY_SRV": "both.test", "ETCDCTL_CACERT": ca}, ""},
		"with a name":                 {map[string]string{"ETCDCTL_DISCOVERY_SRV": "named.test", "ETCDCTL_DISCOVERY_SRV_NAME": "blue", "ETCDCTL_CACERT": ca}, ""},
		"no TLS":                      {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test"}, ""},
		"no TLS is accepted":          {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test", "ETCDCTL_INSECURE_DISCOVERY": "true"}, ""},
		"TLS is all that is accepted": {map[string]string{"ETCDCTL_DISCOVERY_SRV": "both.test", "ETCDCTL_INSECURE_DISCOVERY": "false", "ETCDCTL_CACERT": ca}, ""},
		"no TLS is not":               {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test", "ETCDCTL_INSECURE_DISCOVERY": "false"}, `ETCDCTL_INSECURE_DISCOVERY: the SRV records of "plain.test" name "http://elsewhere.test.:`},
		"a token without TLS":         {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test", "ETCDCTL_AUTH_JWT_TOKEN": "a.b.c"}, "ETCDCTL_AUTH_JWT_TOKEN: the SRV records of"},
		"a user without TLS":          {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test", "ETCDCTL_USER": "u:p"}, "ETCDCTL_USER: the SRV records of"},
		"neither true nor false":      {map[string]string{"ETCDCTL_DISCOVERY_SRV": "plain.test", "ETCDCTL_INSECURE_DISCOVERY": "yes"}, "ETCDCTL_INSECURE_DISCOVERY: "},
		"no records":                  {map[string]string{"ETCDCTL_DISCOVERY_SRV": "none.test"}, "ETCDCTL_DISCOVERY_SRV: "},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := options(t, tt.env).Config()
			if tt.says != "" || err != nil {
				if tt.says == "" || err == nil || !strings.HasPrefix(err.Error(), tt.says) {
					t.Errorf("it says %v, want %q", err, tt.says)
				}
				return
			}
			if len(c.Endpoints) != 1 {
				t.Errorf("it takes %q", c.Endpoints)
			}
			client := etcdtest.Dial(t, clientv3.Config{Endpoints: c.Endpoints, TLS: c.TLS})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := client.Get(ctx, "key"); err != nil {
				t.Errorf("%q: %v", c.Endpoints, err)
			}
		})
	}
}
