package etcdtest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Link is a way to an etcd that can be broken: a TCP proxy that forwards bytes without
// understanding them.
//
// What is sent after a fault was set is subject to it; what was under way at that moment may still
// arrive. Faults add up until [Link.Restore].
type Link struct {
	t              testing.TB
	scheme, target string
	port           *port
	ctx            context.Context // ends with the link
	cancel         context.CancelFunc
	workers        sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while refused
	conns    map[*linkConn]struct{}
	faults   faults
	changed  chan struct{} // closed when faults changes
}

type faults struct {
	silent [2]bool // by direction
	delay  time.Duration
}

type direction int

const (
	up   direction = iota // from the client to etcd
	down                  // from etcd to the client
)

// NewLink opens a link to target, which is an endpoint or a plain host:port. The link is closed
// when the test is over.
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	p, err := reservePort()
	if err != nil {
		t.Fatalf("cannot open a link: %v", err)
	}
	l := &Link{t: t, target: target, port: p, conns: map[*linkConn]struct{}{}, changed: make(chan struct{})}
	if scheme, addr, ok := strings.Cut(target, "://"); ok {
		l.scheme, l.target = scheme+"://", addr
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	t.Cleanup(l.close)
	l.Restore()
	return l
}

// Endpoint returns the client's end of the link, in the form in which the target was given.
func (l *Link) Endpoint() string { return l.scheme + l.port.addr.String() }

// Silence lets nothing pass any more in either direction. Connections stay open; new ones are
// accepted and never answered.
func (l *Link) Silence() { l.set(func(f *faults) { f.silent = [2]bool{true, true} }) }

// SilenceUp holds back what clients send. The answers to earlier requests, and events, still
// arrive.
func (l *Link) SilenceUp() { l.set(func(f *faults) { f.silent[up] = true }) }

// SilenceDown holds back what etcd sends. Requests still reach it and are carried out.
func (l *Link) SilenceDown() { l.set(func(f *faults) { f.silent[down] = true }) }

// Delay makes everything arrive d later, in both directions. It delays; it does not narrow.
func (l *Link) Delay(d time.Duration) { l.set(func(f *faults) { f.delay = d }) }

// Cut resets the connections there are. New ones work.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
}

// Refuse resets the connections there are and refuses new ones.
func (l *Link) Refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse()
}

// Restore ends all faults. What was held back arrives now, as it does when a network comes back
// before TCP gave up.
func (l *Link) Restore() {
	l.set(func(f *faults) { *f = faults{} })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener != nil || l.ctx.Err() != nil {
		return
	}
	listener, err := l.port.listen()
	if err != nil {
		l.t.Errorf("cannot listen on the link's port: %v", err)
		return
	}
	l.listener = listener
	l.workers.Go(func() { l.accept(listener) })
}

func (l *Link) close() {
	l.mu.Lock()
	l.cancel()
	l.refuse()
	l.mu.Unlock()
	l.workers.Wait()
	l.port.release()
}

func (l *Link) refuse() {
	if l.listener != nil {
		l.listener.Close()
		l.listener = nil
	}
	l.cut()
}

func (l *Link) cut() {
	for c := range l.conns {
		c.reset()
	}
}

func (l *Link) set(change func(*faults)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.faults)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		ctx, cancel := context.WithCancel(l.ctx)
		c := &linkConn{link: l, ctx: ctx, cancel: cancel, ends: []*net.TCPConn{client.(*net.TCPConn)}}
		l.mu.Lock()
		if l.listener == listener {
			l.conns[c] = struct{}{}
			l.workers.Go(c.run)
		} else { // refused since
			c.reset()
		}
		l.mu.Unlock()
	}
}

// linkConn is one connection through a link.
type linkConn struct {
	link   *Link
	ctx    context.Context // ends when it is reset
	cancel context.CancelFunc
	ends   []*net.TCPConn // the client's, and once connected etcd's; guarded by link.mu
}

func (c *linkConn) run() {
	defer func() {
		c.link.mu.Lock()
		defer c.link.mu.Unlock()
		c.cancel()
		for _, end := range c.ends {
			end.Close()
		}
		delete(c.link.conns, c)
	}()
	client := c.ends[0]
	server, err := c.connect()
	if err != nil {
		c.lockedReset()
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { c.pump(up, server, client) })
	pumps.Go(func() { c.pump(down, client, server) })
	pumps.Wait()
}

func (c *linkConn) connect() (*net.TCPConn, error) {
	if err := c.passage(up, time.Now()); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(c.ctx, "tcp", c.link.target)
	if err != nil {
		return nil, err
	}
	server := conn.(*net.TCPConn)
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.ctx.Err() != nil { // reset while connecting
		server.Close()
		return nil, c.ctx.Err()
	}
	c.ends = append(c.ends, server)
	return server, nil
}

// chunk is what one read returned: data, or how the stream ended.
type chunk struct {
	data    []byte
	err     error
	arrived time.Time
}

// pump forwards one direction. It reads ahead, as a delay must not hold up what comes after.
func (c *linkConn) pump(d direction, to, from *net.TCPConn) {
	chunks := make(chan chunk, 64)
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() { c.read(from, chunks) })
	for {
		var next chunk
		select {
		case next = <-chunks:
		case <-c.ctx.Done():
			return
		}
		if c.passage(d, next.arrived) != nil {
			return
		}
		switch {
		case errors.Is(next.err, io.EOF):
			to.CloseWrite()
			return
		case next.err != nil:
			c.lockedReset()
			return
		}
		if _, err := to.Write(next.data); err != nil {
			// The sender learns of it from the other direction, if that lets anything through.
			if c.passage(1-d, time.Now()) == nil {
				c.lockedReset()
			}
			return
		}
	}
}

// read hands on what arrives. The last chunk carries the error that ended the stream.
func (c *linkConn) read(from *net.TCPConn, chunks chan<- chunk) {
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		for _, next := range []chunk{{data: data[:n]}, {err: err}} {
			if len(next.data) == 0 && next.err == nil {
				continue
			}
			next.arrived = time.Now()
			select {
			case chunks <- next:
			case <-c.ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passage waits until the link lets pass what arrived at that time. It fails when the connection is
// reset.
func (c *linkConn) passage(d direction, arrived time.Time) error {
	for {
		c.link.mu.Lock()
		faults, changed := c.link.faults, c.link.changed
		c.link.mu.Unlock()
		var due <-chan time.Time
		if !faults.silent[d] {
			wait := time.Until(arrived.Add(faults.delay))
			if wait <= 0 || faults.delay == 0 {
				return c.ctx.Err()
			}
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

func (c *linkConn) lockedReset() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.reset()
}

// reset ends the connection with a TCP reset on both sides. link.mu is held.
func (c *linkConn) reset() {
	c.cancel()
	for _, end := range c.ends {
		end.SetLinger(0)
		end.Close()
	}
}
