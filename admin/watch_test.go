package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// A watch collects events.
type watch struct {
	t      *testing.T
	events chan admin.Event
	check  func(admin.Event)
}

// newWatch watches a prefix until the test is over. It returns when the watch has begun.
func newWatch(t *testing.T, client *clientv3.Client, prefix string) *watch {
	t.Helper()
	schema := schemaOf(t, "event")
	w := &watch{t: t, events: make(chan admin.Event, 100_000), check: func(e admin.Event) { checkSchema(t, schema, e) }}
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	ended := make(chan error, 1)
	go func() {
		for e, err := range admin.Watch(ctx, client, prefix) {
			if err != nil {
				ended <- err
				return
			}
			w.events <- e
		}
		ended <- nil
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended: %v", err)
		}
	})
	if e := w.next(); e.Kind != admin.EventBegan || e.Revision == 0 {
		t.Fatalf("it begins with %+v", e)
	}
	return w
}

// next returns the next event of a lock. A slow machine may be away at any time.
func (w *watch) next() admin.Event {
	w.t.Helper()
	return w.await(func(kind admin.EventKind) bool { return kind != admin.EventAway && kind != admin.EventBack })
}

// await returns the next event of some kinds.
func (w *watch) await(is func(admin.EventKind) bool) admin.Event {
	w.t.Helper()
	for {
		select {
		case e := <-w.events:
			if e.Kind != admin.EventAway && e.Kind != admin.EventBack { // no lines
				w.check(e)
			}
			if is(e.Kind) {
				return e
			}
		case <-etcdtest.Context(w.t).Done():
			w.t.Fatal("waited in vain for an event")
		}
	}
}

// isConnection awaits an event of the connection.
func (w *watch) isConnection(want admin.EventKind) {
	w.t.Helper()
	w.await(func(kind admin.EventKind) bool { return kind == want })
}

// gist is an event in short.
func gist(e admin.Event) string {
	s := string(e.Kind)
	if e.Resync {
		s = "~" + s
	}
	if e.Unsure {
		s += "?"
	}
	switch {
	case e.From != nil:
		s += " " + e.From.ID + ">" + e.Holder.ID
	case e.Holder != nil:
		s += " " + e.Holder.ID
	case e.Waiter != nil:
		s += " " + e.Waiter.ID
	}
	if e.Place > 0 {
		s += fmt.Sprintf(" #%d", e.Place)
	}
	if e.Holder != nil && e.Holder.Broken != nil {
		s += " " + e.Holder.Broken.Reason
	}
	return s
}

// sees awaits events in this order, and returns the last one.
func (w *watch) sees(want ...string) (e admin.Event) {
	w.t.Helper()
	for i, text := range want {
		e = w.next()
		if got := gist(e); got != text {
			w.t.Fatalf("event %d: got %q, want %q: %+v", i, got, text, e)
		}
	}
	return e
}

// handsOver awaits that somebody has a lock after another one, and returns the event: it is passed
// on, or, if that one has not heard yet of who waits, released.
func (w *watch) handsOver(from, to string) admin.Event {
	w.t.Helper()
	e := w.next()
	switch gist(e) {
	case "passed " + from + ">" + to:
		return e
	case "released " + from:
		return w.sees("acquired " + to)
	}
	w.t.Fatalf("from %s to %s: %+v", from, to, e)
	return e
}

// hold has somebody hold a lock who was let in at once.
func hold(t *testing.T, session *etcdlock.Session, key, id string, mode etcdlock.Mode) *etcdlock.Held {
	t.Helper()
	return <-lockIn(t, session, key, id, mode)
}

func unlock(t *testing.T, held *etcdlock.Held) {
	t.Helper()
	if err := held.Unlock(etcdtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

// TestWatch: each event of a lock that is held alone, and nothing of what was before.
func TestWatch(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	before := hold(t, session, "/w/before", "x", etcdlock.Exclusive)
	w := newWatch(t, client, "/w/")
	if _, err := client.Put(ctx, "/w/data/7", "no lock"); err != nil {
		t.Fatal(err)
	}
	unlock(t, before)
	w.sees("released x")
	a := hold(t, session, "/w/a", "a", etcdlock.Exclusive)
	if e := w.sees("acquired a"); e.Token != a.Token() || e.Revision != a.Token() || e.Key != "/w/a" || e.Mode != "exclusive" || e.Holder.Nonce != e.Token || e.Holder.PID == 0 || time.Since(e.Time) > time.Minute {
		t.Errorf("%+v", e)
	}
	b := lockIn(t, session, "/w/a", "b", etcdlock.Exclusive)
	w.sees("joined b #1")
	leaving, leave := context.WithCancel(ctx)
	c, err := session.NewLock("/w/a", "c")
	if err != nil {
		t.Fatal(err)
	}
	c.OnWait = leave
	if _, err := c.Lock(leaving); err == nil {
		t.Error("c has it")
	}
	w.sees("joined c #2", "left c")
	unlock(t, a)
	has := <-b
	if e := w.handsOver("a", "b"); e.Token != has.Token() || e.From != nil && e.From.Nonce != a.Token() {
		t.Errorf("%+v", e)
	}
	unlock(t, has)
	if e := w.sees("released b"); e.Token != has.Token() || e.Holder.Nonce != has.Token() {
		t.Errorf("%+v", e)
	}
}

// TestWatchModes: who shares a lock, or has a slot, a Mutex, a set, and a key that was put by hand.
func TestWatchModes(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	w := newWatch(t, client, "")
	a := hold(t, session, "/shared", "a", etcdlock.Exclusive)
	r := lockIn(t, session, "/shared", "r", etcdlock.Shared)
	w.sees("acquired a", "joined r #1")
	unlock(t, a)
	if e := w.sees("released a", "acquired r"); e.Mode != "shared" || e.Token != 0 || e.Holder.Nonce == 0 {
		t.Errorf("%+v", e)
	}
	q := hold(t, session, "/shared", "q", etcdlock.Shared)
	w.sees("acquired q")
	unlock(t, <-r)
	unlock(t, q)
	w.sees("released r", "released q")

	one := hold(t, session, "/slots", "1", etcdlock.Slots(2))
	hold(t, session, "/slots", "2", etcdlock.Slots(2))
	third := lockIn(t, session, "/slots", "3", etcdlock.Slots(2))
	if e := w.sees("acquired 1", "acquired 2", "joined 3 #1"); e.Mode != "slots" {
		t.Errorf("%+v", e)
	}
	slot := one.Slot()
	unlock(t, one)
	if e := w.sees("released 1", "acquired 3"); e.Token != (<-third).Token() || *e.Holder.Slot != slot {
		t.Errorf("%+v", e)
	}

	m := mutex(t, client, "/mutex")
	name := fmt.Sprintf("etcd (lease %x)", m.Lease())
	if e := w.sees("acquired " + name); e.Holder.Kind != admin.Etcd || e.Token != 0 {
		t.Errorf("%+v", e)
	}
	b := lockIn(t, session, "/mutex", "b", etcdlock.Exclusive)
	w.sees("joined b #1")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := gist(w.next()); strings.TrimSuffix(strings.Replace(got, "?", "", 1), name) != "released " {
		t.Errorf("the Mutex: %s", got)
	}
	unlock(t, <-b)
	w.sees("acquired b", "released b")

	set, err := session.NewSet([]string{"/set/2", "/set/1"}, "both")
	if err != nil {
		t.Fatal(err)
	}
	held, err := set.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, second := w.sees("acquired both"), w.sees("acquired both")
	if first.Key != "/set/1" || second.Key != "/set/2" || first.Revision != second.Revision {
		t.Errorf("%+v, %+v", first, second)
	}
	if err := held.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	w.sees("released both", "released both")
}

// TestWatchByHand: who has put a key by hand shows if somebody waits, and when it goes.
func TestWatchByHand(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	if _, err := client.Put(ctx, "/early", "keep out"); err != nil {
		t.Fatal(err)
	}
	w := newWatch(t, client, "")
	if _, err := client.Put(ctx, "/late", "keep out"); err != nil {
		t.Fatal(err)
	}
	for key, mode := range map[string]etcdlock.Mode{"/early": etcdlock.Shared, "/late": etcdlock.Exclusive} {
		a := lockIn(t, session, key, "a", mode)
		w.sees("joined a #1")
		if _, err := client.Put(ctx, key, "still"); err != nil {
			t.Fatal(err)
		}
		if e := w.sees("acquired still"); e.Holder.Kind != admin.Hand {
			t.Errorf("%+v", e)
		}
		if _, err := client.Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		w.sees("released still", "acquired a")
		unlock(t, <-a)
		w.sees("released a")
	}
}

// TestWatchShortHoldings: a holding is shown with both of its events, however short it is, in
// etcd's order, none of them twice.
func TestWatchShortHoldings(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	w := newWatch(t, client, "/short/")
	const lockers, turns = 4, 100
	for i := range lockers {
		lock, err := newSession(t, client).NewLock("/short/a", fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for range turns {
				held, err := lock.Lock(ctx)
				if err == nil {
					err = held.Unlock(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	has, seen, last := "", 0, int64(0)
	for ended := 0; ended < lockers*turns; {
		e := w.next()
		if e.Revision <= last {
			t.Fatalf("revision %d after %d", e.Revision, last)
		}
		last = e.Revision
		switch e.Kind {
		case admin.EventAcquired, admin.EventPassed:
			if from := e.From; from != nil && from.ID == has {
				has = ""
				ended++
			}
			if has != "" {
				t.Fatalf("%s, and %s has it", gist(e), has)
			}
			has = e.Holder.ID
			seen++
		case admin.EventReleased:
			if has != e.Holder.ID || e.Unsure {
				t.Fatalf("%s, and %s has it", gist(e), has)
			}
			has = ""
			ended++
		}
	}
	if seen != lockers*turns {
		t.Errorf("%d holdings have begun", seen)
	}
}

// TestWatchLost: a lease that has ended is told from a release, also where its holder had renewed
// it before.
func TestWatchLost(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	w := newWatch(t, client, "/lost/")
	for turn := 1; ; turn++ { // a machine that was too slow to ask in time says so
		grant, err := client.Grant(ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		place := fmt.Sprintf("/lost/a/~%x-1", grant.ID)
		if _, err := client.Txn(ctx).Then(clientv3.OpPut("/lost/a", "dead", clientv3.WithLease(grant.ID)),
			clientv3.OpPut(place, `{"v":1,"id":"dead"}`, clientv3.WithLease(grant.ID))).Commit(); err != nil {
			t.Fatal(err)
		}
		w.sees("acquired dead")
		if _, err := client.KeepAliveOnce(ctx, grant.ID); err != nil {
			t.Fatal(err)
		}
		e := w.next()
		if got := gist(e); got == "lost dead" {
			break
		} else if got != "released? dead" || turn == 8 {
			t.Fatalf("turn %d: %s", turn, got)
		}
	}
}

// TestWatchBroken: who is asked to stop is shown, with who has asked, or, where a key was written
// over by hand, without; and then what it does.
func TestWatchBroken(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	w := newWatch(t, client, "")
	for key, mode := range map[string]etcdlock.Mode{"/alone": etcdlock.Exclusive, "/shared": etcdlock.Shared, "/slots": etcdlock.Slots(3)} {
		held := hold(t, session, key, "a", mode)
		e := w.sees("acquired a")
		if _, err := admin.Break(ctx, client, key, e.Holder.Nonce, admin.Request{By: "ops", Host: "c", Reason: "deploy"}); err != nil {
			t.Fatal(err)
		}
		if e := w.sees("broken a deploy"); e.Holder.Broken.By != "ops" || e.Key != key {
			t.Errorf("%+v", e)
		}
		held.Unlock(ctx) // which says that it was broken
		w.sees("released a deploy")
	}
	for key, mode := range map[string]etcdlock.Mode{"/1": etcdlock.Exclusive, "/2/~s": etcdlock.Shared, "/3/=3#": etcdlock.Slots(3)} {
		held := hold(t, session, key[:2], "a", mode)
		found, err := client.Get(ctx, key, clientv3.WithPrefix(), clientv3.WithLimit(1))
		if err == nil {
			_, err = client.Put(ctx, string(found.Kvs[0].Key), "stop", clientv3.WithIgnoreLease())
		}
		if err != nil {
			t.Fatal(err)
		}
		w.sees("acquired a")
		if e := w.next(); e.Kind != admin.EventBroken || e.Holder.Broken != nil {
			t.Errorf("%s: %+v", key, e)
		}
		held.Unlock(ctx)
		if e := w.next(); e.Kind != admin.EventReleased {
			t.Errorf("%s: %+v", key, e)
		}
	}
}

// TestWatchGoesOn: while etcd cannot be reached that is said, and then everything is shown that has
// happened meanwhile.
func TestWatchGoesOn(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	session := newSession(t, client)
	link, linked := s.Linked(t)
	w := newWatch(t, linked, "/on/")
	link.Silence()
	for range 3 {
		unlock(t, hold(t, session, "/on/a", "a", etcdlock.Exclusive))
	}
	w.isConnection(admin.EventAway)
	link.Restore()
	w.isConnection(admin.EventBack)
	w.sees("acquired a", "released a", "acquired a", "released a", "acquired a", "released a")
}

// TestWatchMisses: if etcd has compacted what happened while it could not be reached, that is said,
// and the difference is shown.
func TestWatchMisses(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	link, linked := s.Linked(t)
	w := newWatch(t, linked, "/miss/")
	a := hold(t, session, "/miss/a", "a", etcdlock.Exclusive)
	stays := hold(t, session, "/miss/stays", "s", etcdlock.Exclusive)
	b := lockIn(t, session, "/miss/a", "b", etcdlock.Exclusive)
	since := w.sees("acquired a", "acquired s", "joined b #1").Revision
	link.Refuse()
	unlock(t, a)
	unlock(t, hold(t, session, "/miss/short", "x", etcdlock.Exclusive))
	lockIn(t, session, "/miss/a", "c", etcdlock.Exclusive)
	resp, err := client.Put(ctx, "/other", "")
	if err == nil {
		_, err = client.Compact(ctx, resp.Header.Revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	link.Restore()
	e := w.next()
	if e.Kind != admin.EventMissed || e.Since < since || e.Since >= resp.Header.Revision || e.Revision < resp.Header.Revision {
		t.Fatalf("%+v, not missed since %d", e, since)
	}
	if got := gist(w.next()); got != "~released a" && got != "~released? a" {
		t.Fatal(got)
	}
	w.sees("~acquired b", "~joined c #1")
	unlock(t, stays)
	w.sees("released s")
	unlock(t, <-b)
	w.handsOver("b", "c")
}

// TestWatchWithoutLeader: while etcd has no leader that is said, and nothing is missed.
func TestWatchWithoutLeader(t *testing.T) {
	c := etcdtest.StartCluster(t, 3)
	config := c.Config()
	config.Endpoints = config.Endpoints[:1]
	w := newWatch(t, etcdtest.Dial(t, config), "/leader/")
	session := newSession(t, c.Client(t))
	unlock(t, hold(t, session, "/leader/a", "a", etcdlock.Exclusive))
	w.sees("acquired a", "released a")
	c.Member(1).Kill()
	c.Member(2).Kill()
	w.isConnection(admin.EventAway)
	c.Member(1).Restart()
	unlock(t, hold(t, session, "/leader/b", "b", etcdlock.Exclusive))
	w.sees("acquired b", "released b")
}

// TestWatchOfAnotherHistory: an etcd that has lost what it had is read anew.
func TestWatchOfAnotherHistory(t *testing.T) {
	s := etcdtest.StartProcess(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	for range 10 {
		if _, err := client.Put(ctx, "/other", ""); err != nil {
			t.Fatal(err)
		}
	}
	grant := granted(t, client)
	for key, value := range map[string]string{"/old": "a", fmt.Sprintf("/old/~%x-1", grant.ID): `{"v":1,"id":"a"}`} {
		if _, err := client.Put(ctx, key, value, clientv3.WithLease(grant.ID)); err != nil {
			t.Fatal(err)
		}
	}
	w := newWatch(t, client, "")
	s.Wipe()
	e := w.next()
	if e.Kind != admin.EventMissed || e.Since <= e.Revision {
		t.Fatalf("%+v", e)
	}
	w.sees("~left a")
	unlock(t, hold(t, newSession(t, client), "/new", "b", etcdlock.Exclusive))
	w.sees("acquired b", "released b")
}

// putLock has somebody hold a lock with a lease of its own, who does not renew it.
func putLock(t *testing.T, client *clientv3.Client, key, id string) {
	t.Helper()
	grant := granted(t, client)
	place := fmt.Sprintf("%s/~%x-1", key, grant.ID)
	if _, err := client.Txn(etcdtest.Context(t)).Then(clientv3.OpPut(key, id, clientv3.WithLease(grant.ID)),
		clientv3.OpPut(place, fmt.Sprintf(`{"v":1,"id":%q}`, id), clientv3.WithLease(grant.ID))).Commit(); err != nil {
		t.Fatal(err)
	}
}

// putUntil writes a key that is not of a lock until etcd has passed a revision, and returns etcd's.
func putUntil(t *testing.T, client *clientv3.Client, revision int64) int64 {
	t.Helper()
	for {
		resp, err := client.Put(etcdtest.Context(t), "/noise", "")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Revision > revision {
			return resp.Header.Revision
		}
	}
}

// TestWatchOfABackup: an etcd that was restored from a backup, and has come further than it was
// before the watch reaches it again, is read anew, whatever the watch has seen last.
func TestWatchOfABackup(t *testing.T) {
	for name, tt := range map[string]struct {
		before, after func(w *watch, client *clientv3.Client) // the watch begins
		missed        []string
	}{
		"acquired": {after: func(w *watch, client *clientv3.Client) {
			putLock(t, client, "/a", "a")
			w.sees("acquired a")
		}, missed: []string{"~released a"}},
		"known at the beginning": {before: func(_ *watch, client *clientv3.Client) {
			putLock(t, client, "/a", "a")
		}, missed: []string{"~released a"}},
		"released": {after: func(w *watch, client *clientv3.Client) {
			if _, err := client.Delete(etcdtest.Context(t), "/held", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
			w.sees("released held")
		}, missed: []string{"~acquired held"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := etcdtest.StartProcess(t)
			client := s.Client(t)
			putLock(t, client, "/held", "held")
			restore := s.Backup()
			if tt.before != nil {
				tt.before(nil, client)
			}
			link, linked := s.Linked(t)
			w := newWatch(t, linked, "")
			if tt.after != nil {
				tt.after(w, client)
			}
			last := putUntil(t, client, 0)
			link.Refuse()
			restore()
			now := putUntil(t, client, last+10)
			link.Restore()
			if e := w.next(); e.Kind != admin.EventMissed || e.Since > last || e.Revision < now {
				t.Fatalf("%+v, and not missed up to %d", e, now)
			}
			for _, want := range tt.missed {
				if got := strings.Replace(gist(w.next()), "?", "", 1); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			unlock(t, hold(t, newSession(t, client), "/new", "b", etcdlock.Exclusive))
			w.sees("acquired b", "released b")
		})
	}
}

// TestWatchReconnects: a stream that breaks is no reason to miss anything, also where etcd has
// compacted what the watch has seen, or the watch has seen nothing, and a Mutex went meanwhile.
func TestWatchReconnects(t *testing.T) {
	for name, compacts := range map[string]bool{"": false, "compacted": true} {
		t.Run(name, func(t *testing.T) {
			s := etcdtest.Start(t)
			client, ctx := s.Client(t), etcdtest.Context(t)
			session := newSession(t, client)
			link, linked := s.Linked(t)
			early := newWatch(t, linked, "")
			putLock(t, client, "/alone", "1")
			hold(t, session, "/shared", "2", etcdlock.Shared)
			held := hold(t, session, "/slots", "3", etcdlock.Slots(2))
			m := mutex(t, client, "/mutex")
			name := fmt.Sprintf("etcd (lease %x)", m.Lease())
			early.sees("acquired 1", "acquired 2", "acquired 3", "acquired "+name)
			unlock(t, hold(t, session, "/short", "4", etcdlock.Exclusive))
			last := early.sees("acquired 4", "released 4").Revision
			if compacts {
				if _, err := client.Compact(ctx, last); err != nil {
					t.Fatal(err)
				}
			}
			late := newWatch(t, linked, "")
			link.Refuse()
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
			unlock(t, held)
			link.Restore()
			for _, w := range []*watch{early, late} {
				if got := strings.Replace(gist(w.next()), "?", "", 1); got != "released "+name {
					t.Error(got)
				}
				w.sees("released 3")
			}
		})
	}
}

// TestWatchDenied: who may not read the prefix is told so.
func TestWatchDenied(t *testing.T) {
	s := etcdtest.Start(t)
	ctx := etcdtest.Context(t)
	config := s.AddUser(t, "eye", "pass")
	s.EnableAuth(t, "secret")
	for e, err := range admin.Watch(ctx, etcdtest.Dial(t, config), "/jobs/") {
		if !errors.Is(err, rpctypes.ErrPermissionDenied) || !strings.Contains(err.Error(), `watching locks below "/jobs/"`) {
			t.Errorf("%+v, %v", e, err)
		}
	}
}

// TestEventJSON: what is not known is absent, and a key that is not UTF-8 is in base64.
func TestEventJSON(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 0, 1, 0, time.UTC)
	for want, e := range map[string]admin.Event{
		`{"time":"2026-11-25T03:00:01Z","revision":7,"event":"began"}`:                                                                     {Kind: admin.EventBegan, Time: at, Revision: 7},
		`{"time":"2026-11-25T03:00:01Z","revision":9,"event":"missed","since":7}`:                                                          {Kind: admin.EventMissed, Time: at, Revision: 9, Since: 7},
		`{"time":"2026-11-25T03:00:01Z","revision":7,"event":"left","key_base64":"/w==","mode":"shared","waiter":{"id":"a"}}`:              {Kind: admin.EventLeft, Time: at, Revision: 7, Key: "\xff", Mode: "shared", Waiter: &admin.Contender{ID: "a"}},
		`{"time":"2026-11-25T03:00:01Z","revision":7,"event":"released","key":"/k","mode":"exclusive","holder":{"nonce":7},"unsure":true}`: {Kind: admin.EventReleased, Time: at, Revision: 7, Key: "/k", Mode: "exclusive", Holder: &admin.Holder{Contender: admin.Contender{Nonce: 7}}, Unsure: true},
	} {
		got, err := json.Marshal(e)
		if err != nil || string(got) != want {
			t.Errorf("got  %s, %v\nwant %s", got, err, want)
		}
		checkSchema(t, schemaOf(t, "event"), e)
	}
}
