// Package soak has many contenders of all kinds do everything at random to a few locks, on an etcd
// that is not well half of the time, and watches what must not happen: two holders, tokens that do
// not grow, waits and contexts that do not end, keys and goroutines left behind; and, while etcd is
// well, locks that are waited for and that nobody has, and locks that are lost.
package soak

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/gentle"
)

// length is how long each of the soaks lasts. All run at once.
var length = flag.Duration("soak", time.Minute, "how long each soak lasts")

func TestMain(m *testing.M) {
	gentle.GiveWay()
	os.Exit(etcdtest.Main(m).Parallel(8).Run())
}

const (
	ttl     = 15 * time.Second
	keys    = 3
	patient = 2 * time.Minute // no wait is longer than this once all is well
)

// A soak is one etcd, what is wrong with it, and what is known of the locks.
type soak struct {
	t      *testing.T
	access *etcdtest.Access
	dial   func() *clientv3.Client

	began time.Time
	ill   context.Context // ends when nothing is done to etcd any more
	well  chan struct{}   // closed when the last of that is done
	end   context.Context // ends when nobody is to begin anything any more
	turns atomic.Int64
	lost  atomic.Int64
	looks atomic.Int64 // for locks that nobody has

	health

	mu      sync.Mutex
	holders [keys]map[*holding]bool
	tokens  [keys]int64
	waiters [keys]int       // that are not in a hurry
	idle    [keys]time.Time // since when nobody has a lock that is waited for, if that is so
}

// A holding is somebody who has a lock, of whatever kind.
type holding struct {
	who   string
	holds func() bool // for all that it knows itself
	token int64       // 0: it has none
}

func key(i int) string { return fmt.Sprint("/soak/", i) }

// kept is the lock that the i-th client holds all the time.
func kept(i int) string { return fmt.Sprint("/soak/kept-", i) }

const clients = 2

// TestSoak lets each illness of etcd's last for as long as the flag says.
func TestSoak(t *testing.T) {
	etcdtest.NoLeaks(t)
	users := etcdtest.StartProcess(t)
	asUser := users.AddUser(t, "worker", "pass", key(0), key(1), key(2), kept(0), kept(1))
	users.EnableAuth(t, "secret")
	few := etcdtest.StartProcess(t, etcdtest.WithMaxTxnOps(16))
	full := etcdtest.StartProcess(t, etcdtest.WithQuota(quota))
	three := etcdtest.StartCluster(t, 3, etcdtest.WithSync())
	for _, one := range []struct {
		name   string
		access *etcdtest.Access
		config clientv3.Config
		harm   func(s *soak)
	}{
		{"users", &users.Access, asUser, func(s *soak) { passwords(s, users) }},
		{"few operations", &few.Access, few.Config(), func(s *soak) { restarts(s, few) }},
		{"no space", &full.Access, full.Config(), func(s *soak) { fills(s, full) }},
		{"a member that stands still", &three.Member(0).Access, three.Config(), func(s *soak) { stops(s, three) }},
	} {
		t.Run(one.name, func(t *testing.T) {
			t.Parallel()
			s := &soak{t: t, access: one.access, well: make(chan struct{}), dial: func() *clientv3.Client { return etcdtest.Dial(t, one.config) }}
			for i := range s.holders {
				s.holders[i] = map[*holding]bool{}
			}
			s.run(one.harm)
			s.awaitNothing()
		})
	}
}

func (s *soak) run(harm func(*soak)) {
	var cancel context.CancelFunc
	s.end, cancel = context.WithTimeout(context.Background(), *length)
	defer cancel()
	s.ill, cancel = context.WithTimeout(context.Background(), max(*length-spell, *length/2))
	defer cancel()
	s.began = time.Now()
	s.harmed = s.began
	var wg, harms sync.WaitGroup
	harms.Go(func() { harm(s) })
	harms.Go(s.operate)
	wg.Go(func() { harms.Wait(); close(s.well) })
	watching, unwatch := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() { s.watch(watching); close(watched) }()
	defer func() { unwatch(); <-watched }()
	for i := range clients {
		client := s.dial()
		session, err := etcdlock.NewSession(client, ttl)
		if err != nil {
			s.t.Fatal(err)
		}
		session.ConnectTimeout = patient
		wg.Go(func() { s.keep(session, kept(i)) })
		for range 3 {
			wg.Go(func() { s.contend(client, session.NewLock) })
			wg.Go(func() {
				s.contend(client, func(key, id string) (*etcdlock.Lock, error) {
					l, err := etcdlock.New(client, key, id, ttl)
					if err == nil {
						l.Session().ConnectTimeout = patient
					}
					return l, err
				})
			})
		}
		wg.Go(func() { s.contendByMutex(client) })
		defer func() {
			s.close("a session", session.Close)
			client.Close()
		}()
	}
	if !ends(&wg, *length+3*patient) {
		s.t.Fatal("somebody still waits") // the deadline of go test shows for what
	}
	s.t.Logf("%d turns, %d lost, %d looks while all was well", s.turns.Load(), s.lost.Load(), s.looks.Load())
	if s.turns.Load() == 0 {
		s.t.Error("nobody had a turn")
	}
}

func ends(wg *sync.WaitGroup, within time.Duration) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(within):
		return false
	}
}

// contend takes locks in every way, one after another.
func (s *soak) contend(client *clientv3.Client, make func(key, id string) (*etcdlock.Lock, error)) {
	for s.end.Err() == nil {
		i := rand.IntN(keys)
		l, err := make(key(i), "soak")
		if err != nil {
			s.t.Error(err)
			return
		}
		for range 1 + rand.IntN(5) {
			s.turn(i, client, l)
		}
		s.close("a lock", l.Close)
	}
}

// close ends a lock or a session. While all is well that is confirmed in the end, unless the
// machine does not keep up.
func (s *soak) close(what string, end func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	well := false
	select {
	case <-s.well:
		well = true
	default:
	}
	err := end(ctx)
	for well && errors.Is(err, etcdlock.ErrUnconfirmed) && ctx.Err() == nil {
		err = end(ctx) // etcd has not answered within the validity of the lease
	}
	if err != nil && !errors.As(err, new(*etcdlock.LostError)) && well && s.keepsUp(spell/2) {
		s.t.Errorf("closing %s: %v", what, err)
	}
}

// turn takes a lock once, with a context that may end at any moment.
func (s *soak) turn(i int, client *clientv3.Client, l *etcdlock.Lock) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	hurried := rand.IntN(3) == 0
	if hurried {
		defer time.AfterFunc(time.Duration(rand.IntN(50))*time.Millisecond, cancel).Stop()
	}
	take := l.Lock
	if rand.IntN(6) == 0 {
		take = l.TryLock
	}
	began := time.Now()
	if !hurried {
		s.wait(i, 1)
	}
	held, err := take(ctx)
	if !hurried {
		s.wait(i, -1)
	}
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded && s.keepsUp(spell/2) {
			s.t.Errorf("nobody gave way for %v: %v\n%s", time.Since(began), err, s.keys())
		}
		return
	}
	work := held.Context(context.Background())
	h := &holding{who: "etcdlock", token: held.Token(), holds: func() bool { return held.Remaining() > 0 && work.Err() == nil }}
	s.enter(i, h)
	time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	if rand.IntN(4) == 0 {
		s.guarded(client, l.Key(), held)
	}
	s.leave(i, h)
	s.judge(held.Unlock(context.Background()))
	select {
	case <-work.Done():
	case <-time.After(patient):
		s.t.Error("a context outlives its lock")
	}
	if held.Remaining() > 0 {
		s.t.Error("a lock that was given back is valid")
	}
}

// keys shows what is in etcd.
func (s *soak) keys() (shown string) {
	resp, err := s.access.Client(s.t).Get(etcdtest.Context(s.t), "", clientv3.WithFromKey())
	if err != nil {
		return err.Error()
	}
	for _, kv := range resp.Kvs {
		shown += fmt.Sprintf("%q = %q, lease %x, created %d, written %d\n", kv.Key, kv.Value, kv.Lease, kv.CreateRevision, kv.ModRevision)
	}
	return shown
}

// guarded makes a write that only the holder may make.
func (s *soak) guarded(client *clientv3.Client, key string, held *etcdlock.Held) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	client.Txn(ctx).If(held.IsHolder()).Then(clientv3.OpGet(key)).Commit()
}

// contendByMutex does the same with etcd's own Mutex.
func (s *soak) contendByMutex(client *clientv3.Client) {
	for s.end.Err() == nil {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(int(ttl/time.Second)))
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		i := rand.IntN(keys)
		m := concurrency.NewMutex(session, key(i))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if m.Lock(ctx) == nil {
			taken := time.Now() // its session renews each third of its TTL
			h := &holding{who: "Mutex", holds: func() bool {
				select {
				case <-session.Done():
					return false
				default:
					return time.Since(taken) < ttl/2
				}
			}}
			s.enter(i, h)
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			s.leave(i, h)
		}
		cancel()
		session.Close() // revokes, so that nothing is left of it
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	}
}

// enter takes note of a new holder. Nobody else may hold the lock.
func (s *soak) enter(i int, h *holding) {
	s.turns.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.holders[i] {
		if h.holds() && other.holds() {
			s.t.Errorf("%s is held by %s with token %d and by %s with token %d", key(i), other.who, other.token, h.who, h.token)
		}
	}
	s.holders[i][h] = true
	s.idle[i] = time.Time{}
	if h.token != 0 && h.token <= s.tokens[i] {
		s.t.Errorf("%s: token %d comes after %d", key(i), h.token, s.tokens[i])
	}
	s.tokens[i] = max(s.tokens[i], h.token)
}

func (s *soak) leave(i int, h *holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holders[i], h)
	s.noteIdle(i)
}

// spell is how long etcd is ill, and then well, by turns.
const spell = 30 * time.Second

// often does something again and again, at random times, while etcd is ill.
func (s *soak) often(mean time.Duration, do func()) {
	for s.ill.Err() == nil {
		select {
		case <-time.After(rand.N(2 * mean)):
			if time.Since(s.began)%(2*spell) < spell {
				s.harm(do)
			}
		case <-s.ill.Done():
		}
	}
}

// operate deletes locks' keys, and writes its own there, which stops a holder and lets nobody else
// in. It deletes the tails of lines, and what etcd remembers.
func (s *soak) operate() {
	client := s.access.Client(s.t)
	s.often(300*time.Millisecond, func() {
		k := key(rand.IntN(keys))
		switch rand.IntN(4) {
		case 0:
			k += "~tail"
		case 1:
			s.insist(func(ctx context.Context) error { return compact(ctx, client) })
			return
		case 2:
			s.insist(func(ctx context.Context) error {
				_, err := client.Put(ctx, k, "an operator's")
				if errors.Is(err, rpctypes.ErrNoSpace) {
					return nil
				}
				return err
			})
		}
		// Else nobody gets the lock any more.
		s.insist(func(ctx context.Context) error { _, err := client.Delete(ctx, k); return err })
	})
}

func compact(ctx context.Context, client *clientv3.Client) error {
	now, err := client.Get(ctx, "/soak/", clientv3.WithCountOnly())
	if err == nil {
		_, err = client.Compact(ctx, now.Header.Revision)
	}
	if errors.Is(err, rpctypes.ErrCompacted) { // by an earlier try
		return nil
	}
	return err
}

// insist does something until it is done. Each try has twice as long as the one before: what etcd
// was asked for, it goes on with when nobody waits any more, and a login that is always given up
// costs it as much as one that is not.
func (s *soak) insist(do func(context.Context) error) {
	for within := 10 * time.Second; ; within *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// passwords has etcd forget all tokens, and takes the user's rights away for a moment.
func passwords(s *soak, p *etcdtest.Process) {
	root := p.Client(s.t)
	s.often(time.Second, func() {
		s.insist(func(ctx context.Context) error { _, err := root.UserChangePassword(ctx, "worker", "pass"); return err })
		if rand.IntN(3) > 0 {
			return
		}
		s.insist(func(ctx context.Context) error {
			_, err := root.UserRevokeRole(ctx, "worker", "worker")
			if errors.Is(err, rpctypes.ErrRoleNotGranted) {
				return nil
			}
			return err
		})
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		s.insist(func(ctx context.Context) error { _, err := root.UserGrantRole(ctx, "worker", "worker"); return err })
	})
}

// restarts kills etcd, and starts it again at once.
func restarts(s *soak, p *etcdtest.Process) {
	s.often(5*time.Second, p.Restart)
}

// quota is what etcd may take for its data in fills, in bytes, and share what is written there at
// once.
const quota, share = 16 << 20, 1 << 20

// fills writes until etcd has no space, and then makes some.
func fills(s *soak, p *etcdtest.Process) {
	client := p.Client(s.t)
	s.often(2*time.Second, func() {
		for n := 0; ; n++ {
			full := false
			s.insist(func(ctx context.Context) error {
				_, err := client.Put(ctx, fmt.Sprint("/filled/", n), strings.Repeat("x", share))
				if full = errors.Is(err, rpctypes.ErrNoSpace); full {
					return nil
				}
				return err
			})
			if full {
				break
			}
		}
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		s.insist(func(ctx context.Context) error {
			deleted, err := client.Delete(ctx, "/filled/", clientv3.WithPrefix())
			if err == nil {
				_, err = client.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical())
			}
			if err == nil || errors.Is(err, rpctypes.ErrCompacted) { // by an earlier try
				_, err = client.Defragment(ctx, p.Endpoint())
			}
			return err
		})
		s.access.Alarm(s.t, false)
	})
}

// stops has a member stand still that is not the leader, or its disk.
func stops(s *soak, c *etcdtest.Cluster) {
	leader := c.Leader()
	s.often(2*time.Second, func() {
		m := c.Member(rand.IntN(3))
		if m == leader {
			return
		}
		mend := m.Cont
		if etcdtest.CanStall() && rand.IntN(2) == 0 {
			mend = m.Stall()
		} else {
			m.Stop()
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
		mend()
	})
}
