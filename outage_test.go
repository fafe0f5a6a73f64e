package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestNoAnswerWithALease: a Lock that has a lease does not wait for etcd without end.
func TestNoAnswerWithALease(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	for name, lock := range map[string]func(*etcdlock.Lock, context.Context) (*etcdlock.Held, error){
		"Lock": (*etcdlock.Lock).Lock, "TryLock": (*etcdlock.Lock).TryLock,
	} {
		t.Run(name, func(t *testing.T) {
			link, behind := s.Linked(t)
			inBoth(t, behind, "/silent", ttl, func(t *testing.T, l *etcdlock.Lock) {
				defer link.Restore()
				if err := l.Prepare(etcdtest.Context(t)); err != nil {
					t.Fatal(err)
				}
				l.Session().ConnectTimeout = 200 * time.Millisecond
				link.Silence()
				if _, err := lock(l, context.Background()); !errors.Is(err, etcdlock.ErrNoAnswer) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestNoAnswerWhileStartingOver: who has lost its lease before etcd said that it stands in line,
// and gets no other, does not wait without end.
func TestNoAnswerWhileStartingOver(t *testing.T) {
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/again", ttl, func(t *testing.T, l *etcdlock.Lock) {
		ctx := etcdtest.Context(t)
		if err := l.Prepare(ctx); err != nil {
			t.Fatal(err)
		}
		l.Session().ConnectTimeout = time.Second
		intercept(gate, 1, etcdtest.HoldRequest, "Acquire", "AcquireIfFree")
		w := startLock(t, l)
		join := gate.AwaitHeld(t)
		leases, err := s.Client(t).Leases(ctx)
		if err != nil || len(leases.Leases) != 1 {
			t.Fatal(leases, err)
		}
		must(t)(s.Client(t).Revoke(ctx, leases.Leases[0].ID))
		intercept(gate, every, etcdtest.Drop, "grant")
		join.Release()
		if err := <-w.got; !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Errorf("Lock: %v", err)
		}
		gate.Intercept(nil)
	})
}

// TestNoAnswerToAnyJoin: that etcd answers everything else does not make Lock wait without end, for
// one place after another.
func TestNoAnswerToAnyJoin(t *testing.T) {
	t.Parallel()
	gate, behind := etcdtest.Shared(t).Gated(t)
	inBoth(t, behind, "/no-join", 2*time.Second, func(t *testing.T, l *etcdlock.Lock) {
		l.Session().ConnectTimeout = 3 * time.Second // the first place is given up before
		intercept(gate, every, etcdtest.Drop, joins...)
		ctx, cancel := context.WithTimeout(etcdtest.Context(t), 20*time.Second)
		defer cancel()
		if _, err := l.Lock(ctx); !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Errorf("Lock: %v", err)
		}
		gate.Intercept(nil)
	})
}

// TestNoAnswerSaysWhy: with a lease as without.
func TestNoAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client := s.Client(t)
	var locks []*etcdlock.Lock
	for _, key := range []string{"/why/ready", "/why"} {
		l := newLock(t, client, key, "me")
		l.Session().ConnectTimeout = time.Second
		locks = append(locks, l)
	}
	if err := locks[0].Prepare(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	for _, l := range locks {
		_, err := l.Lock(context.Background())
		if !errors.Is(err, etcdlock.ErrNoAnswer) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("%s: %v", l.Key(), err)
		}
	}
}

// TestManyWithoutAnswer: the locks of a session do not wait for etcd one after another.
func TestManyWithoutAnswer(t *testing.T) {
	t.Parallel()
	const locks, limit = 40, 500 * time.Millisecond
	link, behind := etcdtest.Shared(t).Linked(t)
	link.Silence()
	session := newSession(t, behind)
	session.ConnectTimeout = limit
	began := time.Now()
	var all sync.WaitGroup
	for i := range locks {
		l := lockIn(t, session, fmt.Sprint("/many-silent/", i), "me")
		all.Go(func() {
			if _, err := l.Lock(context.Background()); !errors.Is(err, etcdlock.ErrNoAnswer) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > locks*limit/2 {
		t.Errorf("%v until the last one has failed", took)
	}
	link.Restore()
}

// TestFewJoinsWithoutAnswer: who calls Lock again and again while etcd is silent does not make more
// and more requests that wait for it. All end when it answers.
func TestFewJoinsWithoutAnswer(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	session, l := sessionLock(t, behind, "/pile", 4*time.Second)
	session.ConnectTimeout = time.Second // four times what a first try may take
	var sent atomic.Int32
	gate.Intercept(func(method string, request proto.Message) etcdtest.Verdict {
		switch kind := kindOf(method, request); {
		case slices.Contains(joins, kind):
			sent.Add(1)
			return etcdtest.HoldRequest
		case kind == "Read":
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	for range 2 {
		if _, err := l.Lock(context.Background()); !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Errorf("Lock: %v", err)
		}
		ctx, leave := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if _, err := l.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lock: %v", err)
		}
		leave()
	}
	n := int(sent.Load())
	if n > 3 {
		t.Errorf("%d requests to join were made", n)
	}
	gate.Intercept(nil)
	for range n {
		gate.AwaitHeld(t).Release()
	}
	awaitNoWatch(t, l)
	awaitKeys(t, s.Client(t), "", 0)
	mustLock(t, l)
}

// TestTryLockAnswersInTime: an etcd that falls silent after some answers does not hold it up.
func TestTryLockAnswersInTime(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	newHolder(t, client, "/half", "holder")
	must(t)(client.Put(etcdtest.Context(t), "/stray/key", "no place"))
	for key, silentAfter := range map[string]int32{
		"/half":  1, // who holds it is not told
		"/stray": 4, // it has joined
	} {
		gate, behind := s.Gated(t)
		l := newLock(t, behind, key, "tries")
		if err := l.Prepare(etcdtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		l.Session().ConnectTimeout = 200 * time.Millisecond
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
	gate, behind := s.Gated(t)
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

// TestClientEnded: a Lock that waits with a client that was closed, or whose context has ended, is
// not told of its turn any more. While etcd can be asked, its place is taken back.
func TestClientEnded(t *testing.T) {
	s := etcdtest.Shared(t)
	for name, end := range map[string]func(*clientv3.Client, context.CancelFunc){
		"closed":           func(client *clientv3.Client, _ context.CancelFunc) { client.Close() },
		"its context ends": func(_ *clientv3.Client, cancel context.CancelFunc) { cancel() },
	} {
		key := "/client/" + name
		newHolder(t, s.Client(t), key, "holder")
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
		if line := etcdtest.Keys(t, s.Client(t), key+"/"); name != "closed" && len(line) != 1 {
			t.Errorf("%s: %d stand in line", name, len(line))
		}
	}
}

// TestGivenBackToAClosedClient: whoever has closed its client learns at once that nothing can be
// given back.
func TestGivenBackToAClosedClient(t *testing.T) {
	s := etcdtest.Start(t)
	ctx, cancel := context.WithTimeout(etcdtest.Context(t), 30*time.Second)
	defer cancel()
	for name, shared := range map[string]bool{"Unlock": false, "Close": false, "Unlock in a session": true, "Close of the session": true} {
		client, err := clientv3.New(s.Config())
		if err != nil {
			t.Fatal(err)
		}
		session, l := sessionLock(t, client, "/closed/"+name, time.Minute)
		if !shared {
			l = newLock(t, client, "/closed/"+name, "me")
			l.Session().TTL = time.Minute
		}
		mustLock(t, l)
		client.Close()
		switch name {
		case "Close":
			err = l.Close(ctx)
		case "Close of the session":
			err = session.Close(ctx)
		default:
			err = l.Unlock(ctx)
		}
		if !errors.Is(err, etcdlock.ErrUnconfirmed) || !strings.Contains(err.Error(), "the etcd client is closed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSessionClosedWhileJoining: a Lock that etcd does not answer ends with its session.
func TestSessionClosedWhileJoining(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	link, behind := s.Linked(t)
	// For which it tries to take one place.
	session, l := sessionLock(t, behind, "/joining", 4*time.Second)
	session.ConnectTimeout = time.Hour
	joins := make(chan struct{}, 8)
	l.Logger = onMessage("place in line lost, taking another", func() { joins <- struct{}{} })
	link.Silence()
	w := startLock(t, l)
	<-joins
	if err := session.Close(ended()); !errors.Is(err, etcdlock.ErrUnconfirmed) {
		t.Errorf("Close: %v", err)
	}
	if err := <-w.got; !errors.Is(err, etcdlock.ErrClosed) {
		t.Errorf("Lock: %v", err)
	}
	link.Restore()
}

// TestEndAfterAnOutage: etcd keeps a lease beyond its TTL when it was restarted. Whoever ends what
// was lost meanwhile ends that lease, or says that it could not.
func TestEndAfterAnOutage(t *testing.T) {
	t.Parallel()
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
				if left := etcdtest.Keys(t, p.Client(t), "/outage"); len(left) > 0 {
					t.Errorf("left under lease %x: %v", lease, left)
				}
			})
		})
	}
}

// TestCloseEndsAllWaits: of several goroutines that wait for one Lock.
func TestCloseEndsAllWaits(t *testing.T) {
	s := etcdtest.Shared(t)
	client := s.Client(t)
	newHolder(t, client, "/all", "holder")
	inBoth(t, client, "/all", ttl, func(t *testing.T, l *etcdlock.Lock) {
		got := make(chan error, 8)
		w := queue(t, l)
		for range cap(got) {
			go func() { _, err := l.Lock(etcdtest.Context(t)); got <- err }()
		}
		for left := cap(got); left > 0; { // some may come later than a Close
			if err := l.Close(etcdtest.Context(t)); err != nil {
				t.Fatal(err)
			}
			for more := true; more && left > 0; {
				select {
				case err := <-got:
					if left--; !errors.Is(err, etcdlock.ErrClosed) {
						t.Errorf("Lock: %v", err)
					}
				case <-time.After(10 * time.Millisecond):
					more = false
				}
			}
		}
		if err := <-w.got; !errors.Is(err, etcdlock.ErrClosed) {
			t.Errorf("Lock: %v", err)
		}
	})
}

// TestTryLockIsBounded: by ConnectTimeout, whatever other goroutines do with the Lock.
func TestTryLockIsBounded(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	newHolder(t, client, "/bounded", "holder")
	waits := newLock(t, client, "/bounded", "waits")
	waits.Session().ConnectTimeout = time.Second
	queue(t, waits)
	if _, err := waits.TryLock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrBusy) {
		t.Errorf("TryLock beside a Lock that waits: %v", err)
	}
	link, behind := s.Linked(t)
	held := newLock(t, behind, "/bounded/held", "me")
	held.Session().ConnectTimeout = time.Second
	mustLock(t, held)
	link.Silence()
	for name, lock := range map[string]func(context.Context) (*etcdlock.Held, error){"Lock": held.Lock, "TryLock": held.TryLock} {
		if _, err := lock(etcdtest.Context(t)); !errors.Is(err, etcdlock.ErrNoAnswer) {
			t.Errorf("%s while it is held, and etcd silent: %v", name, err)
		}
	}
	link.Restore()
}

// TestOutageAtRejoin: who has waited waits out an outage, also as another place is to be taken.
func TestOutageAtRejoin(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	holder := newHolder(t, client, "/rejoin", "holder")
	gate, behind := s.Gated(t)
	l := newLock(t, behind, "/rejoin", "me")
	l.Session().TTL = 8 * time.Second
	l.Session().ConnectTimeout = time.Second // less than a request that is lost takes
	w := queue(t, l)
	var joins atomic.Int32
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if txn, ok := message.(*pb.TxnRequest); ok && len(txn.Compare) > 0 && joins.Add(1) < 3 {
			return etcdtest.Drop // long enough for ConnectTimeout
		}
		return etcdtest.Pass
	})
	must(t)(client.Delete(ctx, placeOf(t, client, "/rejoin", "me").key))
	await(t, "it to try for long", func() (bool, any) { n := joins.Load(); return n >= 3, n })
	mustUnlock(t, holder)
	w.mustGet(t)
	mustUnlock(t, l)
}

// TestClosedAtLast: what could not be confirmed is not forgotten: the next Close ends it.
func TestClosedAtLast(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	for name, end := range map[string]func(*etcdlock.Lock) error{
		"Lock.Unlock":   func(l *etcdlock.Lock) error { return l.Unlock(ended()) },
		"Lock.Close":    func(l *etcdlock.Lock) error { return l.Close(ended()) },
		"Session.Close": func(l *etcdlock.Lock) error { return l.Session().Close(ended()) },
	} {
		t.Run(name, func(t *testing.T) {
			link, behind := s.Linked(t)
			inBoth(t, behind, "/at-last", ttl, func(t *testing.T, l *etcdlock.Lock) {
				mustLock(t, l)
				link.Silence()
				if err := end(l); !errors.Is(err, etcdlock.ErrUnconfirmed) {
					t.Errorf("in silence: %v", err)
				}
				link.Restore()
				if err := l.Session().Close(etcdtest.Context(t)); err != nil {
					t.Errorf("Close: %v", err)
				}
				s.Empty(t)
			})
		})
	}
}

// TestLeaseBefore: a session that has lost its lease ends it when it has another one: nobody serves
// the places under it.
func TestLeaseBefore(t *testing.T) {
	t.Parallel()
	p := etcdtest.StartProcess(t)
	client := p.Client(t)
	session, a := sessionLock(t, client, "/before/a", 2*time.Second)
	b := lockIn(t, session, "/before/b", "me")
	held := mustLock(t, a)
	p.Kill()
	<-held.Expired()
	p.Restart()
	mustLock(t, b)
	if left := etcdtest.Keys(t, client, "/before/a"); len(left) > 0 {
		t.Errorf("left under the lease before: %v", left)
	}
}

// TestJoinsThatHang: requests to join that hang at one member do not keep others from the next.
func TestJoinsThatHang(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t)
	gate, behind := s.Gated(t)
	inBoth(t, behind, "/hang", ttl, func(t *testing.T, l *etcdlock.Lock) {
		l.Session().ConnectTimeout = ttl
		hit := intercept(gate, 4, etcdtest.HoldRequest, joins...)
		mustLock(t, l)
		for range 4 {
			<-hit
			gate.AwaitHeld(t).Release()
		}
		mustUnlock(t, l)
	})
}
