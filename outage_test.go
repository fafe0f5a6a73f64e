package etcdlock_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// inBoth runs a test with a lock of its own session, and with one of a session for several.
func inBoth(t *testing.T, client *clientv3.Client, key string, ttl time.Duration, test func(t *testing.T, l *etcdlock.Lock)) {
	t.Helper()
	t.Run("own session", func(t *testing.T) { test(t, timed(t, client, key, "me", ttl)) })
	t.Run("shared session", func(t *testing.T) {
		_, l := sessionLock(t, client, key, ttl)
		test(t, l)
	})
}

// TestNoAnswerWithALease: that a lease is at hand does not make Lock wait for etcd without end.
func TestNoAnswerWithALease(t *testing.T) {
	s := etcdtest.Start(t)
	for name, lock := range map[string]func(*etcdlock.Lock, context.Context) (*etcdlock.Held, error){
		"Lock": (*etcdlock.Lock).Lock, "TryLock": (*etcdlock.Lock).TryLock,
	} {
		t.Run(name, func(t *testing.T) {
			link, behind := linked(t, s)
			inBoth(t, behind, "/silent", ttl, func(t *testing.T, l *etcdlock.Lock) {
				defer link.Restore()
				l.Session().ConnectTimeout = 200 * time.Millisecond
				if err := l.Prepare(etcdtest.Context(t)); err != nil {
					t.Fatal(err)
				}
				link.Silence()
				if _, err := lock(l, context.Background()); !errors.Is(err, etcdlock.ErrNoAnswer) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestTryLockAnswersInTime: an etcd that falls silent after some answers does not hold it up.
func TestTryLockAnswersInTime(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	mustLock(t, newLock(t, client, "/half", "holder"))
	if _, err := client.Put(etcdtest.Context(t), "/stray/key", "no place"); err != nil {
		t.Fatal(err)
	}
	for key, silentAfter := range map[string]int32{
		"/half":  1, // who holds it is not told
		"/stray": 4, // it has joined
	} {
		gate, behind := gated(t, s)
		l := newLock(t, behind, key, "tries")
		l.Session().ConnectTimeout = 200 * time.Millisecond
		if err := l.Prepare(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		var answers atomic.Int32
		gate.InterceptAnswers(func(method string, _ proto.Message) etcdtest.Verdict {
			if strings.HasSuffix(method, "Txn") && answers.Add(1) > silentAfter {
				return etcdtest.Drop
			}
			return etcdtest.Pass
		})
		if _, err := l.TryLock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Errorf("TryLock of %s: %v", key, err)
		}
		gate.InterceptAnswers(nil)
	}
}

// TestNothingIsSentInVain: for a context that is over.
func TestNothingIsSentInVain(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := gated(t, s)
	inBoth(t, behind, "/vain", ttl, func(t *testing.T, l *etcdlock.Lock) {
		if err := l.Prepare(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		var sent atomic.Int32
		gate.Intercept(func(method string, _ proto.Message) etcdtest.Verdict {
			if strings.HasSuffix(method, "Txn") || strings.HasSuffix(method, "LeaseGrant") || strings.HasSuffix(method, "LeaseRevoke") {
				sent.Add(1)
			}
			return etcdtest.Pass
		})
		for range 10 {
			if _, err := l.Lock(ended()); !errors.Is(err, context.Canceled) {
				t.Errorf("Lock: %v", err)
			}
			if err := l.Run(ended(), nil); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
		}
		if n := sent.Load(); n > 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

// TestClientEnded: a Lock that waits with a client that was closed, or whose context has ended, is not
// told of its turn any more. While etcd can be asked, its place is taken back.
func TestClientEnded(t *testing.T) {
	s := etcdtest.Shared(t)
	for name, end := range map[string]func(*clientv3.Client, context.CancelFunc){
		"closed":           func(client *clientv3.Client, _ context.CancelFunc) { client.Close() },
		"its context ends": func(_ *clientv3.Client, cancel context.CancelFunc) { cancel() },
	} {
		key := "/client/" + name
		mustLock(t, newLock(t, s.Client(t), key, "holder"))
		config := s.Config()
		var cancel context.CancelFunc
		config.Context, cancel = context.WithCancel(context.Background())
		client, err := clientv3.New(config)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		defer cancel()
		l, err := etcdlock.New(client, key, "waits", 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		w := queue(t, l)
		end(client, cancel)
		if err := <-w.got; err == nil || !strings.Contains(err.Error(), "client is closed, or its context") {
			t.Errorf("%s: Lock: %v", name, err)
		}
		resp, err := s.Client(t).Get(etcdtest.Context(t), key+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || name != "closed" && resp.Count != 1 {
			t.Errorf("%s: %d stand in line, %v", name, resp.Count, err)
		}
	}
}

// TestSessionClosedWhileJoining: a Lock that etcd does not answer ends with its session.
func TestSessionClosedWhileJoining(t *testing.T) {
	s := etcdtest.Start(t)
	link, behind := linked(t, s)
	session, l := sessionLock(t, behind, "/joining", ttl)
	session.ConnectTimeout = time.Hour
	joins := make(chan struct{}, 8)
	l.Logger = slog.New(&listener{"place in line lost, taking another", func() { joins <- struct{}{} }})
	link.Silence()
	got := make(chan error, 1)
	go func() { _, err := l.Lock(etcdtest.Context(t)); got <- err }()
	<-joins
	if err := session.Close(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("Close: %v", err)
	}
	if err := <-got; !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("Lock: %v", err)
	}
	link.Restore()
}

// TestEndAfterAnOutage: etcd keeps a lease beyond its TTL when it was restarted. Whoever ends what was
// lost meanwhile ends that lease, or says that it could not.
func TestEndAfterAnOutage(t *testing.T) {
	for name, end := range map[string]func(*etcdlock.Lock) error{
		"Lock.Unlock":   func(l *etcdlock.Lock) error { return l.Unlock(context.Background()) },
		"Lock.Close":    func(l *etcdlock.Lock) error { return l.Close(context.Background()) },
		"Session.Close": func(l *etcdlock.Lock) error { return l.Session().Close(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := etcdtest.StartProcess(t)
			inBoth(t, p.Client(t), "/outage", 2*time.Second, func(t *testing.T, l *etcdlock.Lock) {
				held := mustLock(t, l)
				lease := held.Lease()
				p.Kill()
				<-held.Expired()
				if name == "Session.Close" {
					if err := l.Session().Close(context.Background()); !errors.Is(err, etcdlock.ErrUnconfirmed) && !errors.Is(err, etcdlock.ErrNotHeld) {
						t.Errorf("while etcd is away: %v", err)
					}
					p.Restart()
					return
				}
				p.Restart()
				if err := end(l); !errors.Is(err, etcdlock.ErrNotHeld) {
					t.Error(err)
				}
				resp, err := p.Client(t).Get(etcdtest.Context(t), "/outage", clientv3.WithPrefix())
				if err != nil || len(resp.Kvs) > 0 {
					t.Errorf("left under lease %x: %v, %v", lease, resp, err)
				}
			})
		})
	}
}
