//go:build linux

package taking

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/test/programs"
)

// A proxy leads connections that ask for a name to a server, or refuses them.
type proxy struct {
	listener net.Listener
	link     *etcdtest.Link // to the server; nil: it refuses
}

func newProxy(t *testing.T, link *etcdtest.Link) *proxy {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l, link}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// The name that is asked for, and who asks.
const (
	behindProxy = "etcd.test:2379"
	whoAsks     = "me:secret"
)

// variable tells programs of the proxy.
func (p *proxy) variable(name string) string {
	return name + "=http://" + whoAsks + "@" + p.listener.Addr().String()
}

func (p *proxy) serve(c net.Conn) {
	request, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil || p.link == nil || request.Method != http.MethodConnect || request.Host != behindProxy || request.Header.Get("Proxy-Authorization") == "" {
		fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		c.Close()
		return
	}
	_, address, _ := strings.Cut(p.link.Endpoint(), "://")
	server, err := net.Dial("tcp4", address)
	if err != nil {
		c.Close()
		return
	}
	fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
	both(c, server)
}

// both copies in both directions, until one of them ends.
func both(near, far io.ReadWriteCloser) {
	done := make(chan struct{}, 2)
	for _, ends := range [][2]io.ReadWriteCloser{{near, far}, {far, near}} {
		go func() { io.Copy(ends[0], ends[1]); done <- struct{}{} }()
	}
	<-done
	near.Close()
	far.Close()
	<-done
}

// TestProxyIsNamed: if etcd does not answer, the proxy that was used is named, without its user.
func TestProxyIsNamed(t *testing.T) {
	t.Parallel()
	p := newProxy(t, nil)
	named := "it was asked through the proxy http://" + p.listener.Addr().String() + " (HTTPS_PROXY)"
	logs := []string{"GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99"}
	for name, tt := range map[string]struct {
		vars []string
		args []string
		says string
	}{
		"refused":         {[]string{p.variable("HTTPS_PROXY")}, nil, named},
		"without a lease": {[]string{p.variable("HTTPS_PROXY")}, []string{"--user", "u:p"}, named},
		"verbose":         {append(logs, p.variable("HTTPS_PROXY")), []string{"-v"}, named},
		"small letters":   {[]string{p.variable("https_proxy")}, nil, strings.Replace(named, "HTTPS_PROXY", "https_proxy", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := programs.Start(t, tt.vars, "etcdlocker", append(tt.args, "-e", behindProxy, "-k", "/x", "--connect-timeout", "1s", "echo", "ran")...)
			if code := got.Code(); code != 1 || !strings.Contains(got.Stderr.String(), tt.says) || !strings.Contains(got.Stderr.String(), "hint: check that etcd runs") {
				t.Errorf("exit code %d, %q", code, got.Stderr)
			}
			if strings.Contains(got.Stderr.String(), "secret") || strings.Contains(got.Stderr.String(), "me@") {
				t.Errorf("it says who asks: %s", got.Stderr)
			}
		})
	}
	// etcd on this machine is never asked through a proxy.
	got := programs.Start(t, []string{p.variable("HTTPS_PROXY")}, "etcdlocker", "-e", "127.0.0.1:1", "-k", "/x", "--connect-timeout", "1s", "true")
	if code := got.Code(); code != 1 || strings.Contains(got.Stderr.String(), "proxy") {
		t.Errorf("exit code %d, %q", code, got.Stderr)
	}
}

// TestThroughProxy: a lock is held through a proxy, which is named when it fails.
func TestThroughProxy(t *testing.T) {
	t.Parallel()
	s := etcdtest.Shared(t)
	p := newProxy(t, etcdtest.NewLink(t, s.Endpoint()))
	vars := []string{p.variable("HTTPS_PROXY"), "ETCDCTL_ENDPOINTS=" + behindProxy}
	if got := programs.Start(t, vars, "etcdlocker", "-k", "/proxy", "true"); got.Code() != 0 || got.Said() != "" {
		t.Errorf("exit code %d, %q", got.Code(), got.Stderr)
	}
	got := programs.Start(t, vars, "etcdlocker", "-t", "4", "-k", "/proxy", "--", "sh", "-c", "echo ready; exec sleep 1000")
	got.Says(got.Stdout, "ready") // by then etcd's answer has come through the proxy
	p.link.Silence()
	if code := got.Code(); code != 2 || !strings.Contains(got.Stderr.String(), "it was asked through the proxy http://"+p.listener.Addr().String()+" (HTTPS_PROXY)") {
		t.Errorf("exit code %d, %q", code, got.Stderr)
	}
}
