package etcdtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/v3"
)

// linked returns a link to a new etcd, a client through it that is connected, and one beside it.
func linked(t *testing.T) (l *Link, through, beside *clientv3.Client) {
	t.Helper()
	s := Start(t)
	l, through = s.Linked(t)
	mustPut(t, through, "before", "1")
	return l, through, s.Client(t)
}

// putting puts in the background and returns where the result will be.
func putting(t *testing.T, client *clientv3.Client, key string) <-chan error {
	ctx := Context(t)
	result := make(chan error, 1)
	go func() {
		_, err := client.Put(ctx, key, "1")
		result <- err
	}()
	return result
}

// unanswered checks that there is no result for a while. It can miss an answer that comes late, but
// not invent one.
func unanswered(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		t.Errorf("answered: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
}

func TestLinkSilence(t *testing.T) {
	l, through, beside := linked(t)
	l.Silence()
	put := putting(t, through, "a")
	unanswered(t, put)
	if got := value(t, beside, "a"); got != "" {
		t.Error("the request passed")
	}
	conn, err := net.Dial("tcp", l.port.addr.String())
	if err != nil {
		t.Fatalf("a silent link does not accept: %v", err)
	}
	defer conn.Close()

	l.Restore()
	if err := <-put; err != nil {
		t.Errorf("after the silence: %v", err)
	}
	if got := value(t, beside, "a"); got != "1" {
		t.Errorf("after the silence a = %q", got)
	}
}

func TestLinkSilenceUp(t *testing.T) {
	l, through, beside := linked(t)
	events := through.Watch(Context(t), "seen", clientv3.WithCreatedNotify())
	<-events
	l.SilenceUp()
	put := putting(t, through, "a")
	mustPut(t, beside, "seen", "1")
	if event := <-events; len(event.Events) != 1 {
		t.Errorf("watch through the link: %+v", event)
	}
	unanswered(t, put)
	if got := value(t, beside, "a"); got != "" {
		t.Error("the request passed")
	}
	l.Restore()
	if err := <-put; err != nil {
		t.Error(err)
	}
}

func TestLinkSilenceDown(t *testing.T) {
	l, through, beside := linked(t)
	l.SilenceDown()
	put := putting(t, through, "a")
	Await(t, "the request", func(ctx context.Context) error {
		if get, err := beside.Get(ctx, "a"); err != nil || get.Count == 0 {
			return errors.Join(err, errors.New("it did not arrive"))
		}
		return nil
	})
	unanswered(t, put)
	l.Restore()
	if err := <-put; err != nil {
		t.Error(err)
	}
}

func TestLinkRefuse(t *testing.T) {
	l, through, _ := linked(t)
	conn, err := net.Dial("tcp", l.port.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		l.Refuse()
		if err := dials(l.port.addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a new connection: %v", err)
		}
		l.Restore()
		if got := value(t, through, "before"); got != "1" { // a read, as only those are tried again
			t.Errorf("restored: %q", got)
		}
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the old connection: %v", err)
	}
}

func TestLinkCut(t *testing.T) {
	l, _, _ := linked(t)
	conn, err := net.Dial("tcp", l.port.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	Await(t, "the connection", func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.conns) < 2 {
			return errors.New("not accepted")
		}
		return nil
	})
	l.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the old connection: %v", err)
	}
	if err := dials(l.port.addr.String()); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}

func TestLinkCutWhileSilent(t *testing.T) {
	l, through, beside := linked(t)
	l.Silence()
	put := putting(t, through, "a")
	unanswered(t, put)
	l.Cut()
	if err := <-put; err == nil {
		t.Error("answered after a cut")
	}
	l.Restore()
	value(t, through, "b") // on a new connection
	if got := value(t, beside, "a"); got != "" {
		t.Error("what a connection had held back survived its cut")
	}
}

func TestLinkDelay(t *testing.T) {
	l, through, _ := linked(t)
	const delay = 40 * time.Millisecond
	l.Delay(delay)
	began := time.Now()
	mustPut(t, through, "a", "")
	if took := time.Since(began); took < 2*delay {
		t.Errorf("a round trip took %v with a delay of %v each way", took, delay)
	}
	l.Delay(time.Hour)
	put := putting(t, through, "b")
	unanswered(t, put)
	l.Restore()
	if err := <-put; err != nil {
		t.Error(err)
	}
}

// TestLinkForwards sends more than all buffers hold, both ways, and ends one direction at a time.
func TestLinkForwards(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		conn, err := echo.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	}()
	l := NewLink(t, echo.Addr().String())
	conn, err := net.Dial("tcp", l.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		conn.Write(sent)
		conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back as sent, %v", len(got), len(sent), err)
	}
}

func TestLinkToNowhere(t *testing.T) {
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	l := NewLink(t, p.addr.String())
	conn, err := net.Dial("tcp", l.Endpoint())
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection to a link whose target refuses: %v", err)
	}
}

// TestPortStaysReserved checks that nobody else can take a port on which nothing listens.
func TestPortStaysReserved(t *testing.T) {
	p, err := reservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.release()
	if stranger, err := net.Listen("tcp", p.addr.String()); err == nil {
		stranger.Close()
		t.Error("somebody else could listen on the port")
	}
}
