package etcdtest

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// A Link is a TCP connection to a server that can be broken at will. It understands nothing of what passes.
type Link struct {
	port   *port
	target string

	mu       sync.Mutex
	passes   *sync.Cond // signalled when silent or closed changes
	silent   bool
	refusing bool
	closed   bool
	listener net.Listener
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup
}

// NewLink returns a link to an endpoint, which may be a URL. It ends with the test.
func NewLink(t testing.TB, endpoint string) *Link {
	t.Helper()
	_, target, ok := strings.Cut(endpoint, "://")
	if !ok {
		target = endpoint
	}
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{port: p, target: target, conns: make(map[net.Conn]struct{})}
	l.passes = sync.NewCond(&l.mu)
	if err := l.accept(); err != nil {
		p.release()
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

// Endpoint returns where the link listens.
func (l *Link) Endpoint() string { return "http://" + l.port.addr.String() }

// Silence holds everything back in both directions. Connections stay open, new ones are accepted.
func (l *Link) Silence() { l.set(func() { l.silent = true }) }

// Refuse breaks all connections and refuses new ones.
func (l *Link) Refuse() {
	l.set(func() {
		l.refusing = true
		if l.listener != nil {
			l.listener.Close()
		}
		for c := range l.conns {
			c.Close()
		}
	})
}

// Restore heals the link. What was held back is delivered.
func (l *Link) Restore() error {
	l.mu.Lock()
	was := l.refusing
	l.silent, l.refusing = false, false
	l.passes.Broadcast()
	l.mu.Unlock()
	if was {
		return l.accept()
	}
	return nil
}

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.passes.Broadcast()
}

func (l *Link) close() {
	l.set(func() { l.closed = true })
	l.Refuse()
	l.wg.Wait()
	l.port.release()
}

func (l *Link) accept() error {
	listener, err := l.port.listen()
	if err != nil {
		return err
	}
	l.set(func() { l.listener = listener })
	l.wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(c) })
		}
	})
	return nil
}

// keep takes note of a connection, so that it can be broken. It reports whether it may go on.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusing || l.closed {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *Link) serve(client net.Conn) {
	defer l.drop(client)
	if !l.keep(client) {
		return
	}
	server, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.drop(server)
	if !l.keep(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pipe(server, client) })
	both.Go(func() { l.pipe(client, server) })
	both.Wait()
}

// pipe passes on what comes until one side is closed; then it closes both.
func (l *Link) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.wait()
		if _, writeErr := to.Write(buf[:n]); writeErr != nil || err != nil {
			return
		}
	}
}

// wait blocks as long as the link is silent.
func (l *Link) wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.silent && !l.closed {
		l.passes.Wait()
	}
}
