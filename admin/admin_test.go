package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/admin"
	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m).Run()) }

const ttl = 10 * time.Second

// answered is how long etcd may take to answer one of a crowd on a slow machine.
const answered = time.Minute

// lockIn acquires a lock of a session in some mode, unless that takes until the test is over.
func lockIn(t *testing.T, session *etcdlock.Session, key, id string, mode etcdlock.Mode) (held <-chan *etcdlock.Held) {
	t.Helper()
	lock, err := session.NewLock(key, id)
	if err != nil {
		t.Fatal(err)
	}
	lock.Mode = mode
	got, waits := make(chan *etcdlock.Held, 1), make(chan struct{})
	lock.OnWait = func() { close(waits) }
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if h, err := lock.Lock(ctx); err == nil {
			got <- h
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case h := <-got:
		got <- h
	case <-waits:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	return got
}

func newSession(t *testing.T, client *clientv3.Client) *etcdlock.Session {
	t.Helper()
	session, err := etcdlock.NewSession(client, ttl)
	if err != nil {
		t.Fatal(err)
	}
	session.ConnectTimeout = answered
	t.Cleanup(func() { session.Close(etcdtest.Context(t)) })
	return session
}

// mutex is one of etcd's, which waits, or has the lock.
func mutex(t *testing.T, client *clientv3.Client, key string) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		concurrency.NewMutex(s, key).Lock(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended; s.Close() })
	etcdtest.Await(t, "the place of a Mutex", func(ctx context.Context) error {
		resp, err := client.Get(ctx, fmt.Sprintf("%s/%x", key, s.Lease()))
		if err == nil && len(resp.Kvs) == 0 {
			err = fmt.Errorf("it is not there")
		}
		return err
	})
	return s
}

func look(t *testing.T, client *clientv3.Client, key string) admin.Line {
	t.Helper()
	line, err := admin.Look(etcdtest.Context(t), client, key)
	if err != nil {
		t.Fatal(err)
	}
	checkSchema(t, schemaOf(t, "lock"), line)
	return line
}

// schemaOf returns what docs/etcdlockctl.schema.json says of a lock, or of an event.
func schemaOf(t *testing.T, what string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("../docs/etcdlockctl.schema.json#/$defs/" + what)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// granted returns a lease that outlasts the test.
func granted(t *testing.T, client *clientv3.Client) *clientv3.LeaseGrantResponse {
	t.Helper()
	resp, err := client.Grant(etcdtest.Context(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// checkSchema holds the JSON of a value against the schema that is published.
func checkSchema(t *testing.T, schema *jsonschema.Schema, value any) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	read, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = schema.Validate(read)
	}
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
}

// sketch is a line in short: its state and mode, who has it, and who waits.
func sketch(l admin.Line) string {
	s := fmt.Sprintf("%s %s", l.State, l.Mode)
	for _, h := range l.Holders {
		s += fmt.Sprintf(" %s:%s", h.Kind, h.ID)
	}
	for i, w := range l.Waiters {
		if w.Place != i+1 {
			s += " !"
		}
		s += fmt.Sprintf(" <%s:%s%s", w.Kind, w.ID, w.Mode)
	}
	return s
}

// TestLook: each mode, with etcd's own locks before and behind, and a key that was put by hand.
func TestLook(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	session := newSession(t, client)
	if got := sketch(look(t, client, "/free")); got != "free " {
		t.Errorf("free: %s", got)
	}
	held := <-lockIn(t, session, "/alone", "a", etcdlock.Exclusive)
	lockIn(t, session, "/alone", "b", etcdlock.Exclusive)
	lockIn(t, session, "/alone", "c", etcdlock.Shared)
	behind := mutex(t, client, "/alone")
	line := look(t, client, "/alone")
	if got, want := sketch(line), fmt.Sprintf("held exclusive library:a <library:b <library:cshared <etcd:etcd (lease %x)", behind.Lease()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	h := line.Holders[0]
	if line.Token != held.Token() || h.Nonce != line.Token || h.Lease != fmt.Sprintf("%x", held.Lease()) || h.PID != os.Getpid() ||
		h.TTL != ttl || h.TTLLeft <= 0 || h.TTLLeft > ttl || h.Joined.IsZero() || line.Revision == 0 {
		t.Errorf("the holder is %+v of %+v", h, line)
	}
	lockIn(t, session, "/shared", "a", etcdlock.Shared)
	lockIn(t, session, "/shared", "b", etcdlock.Shared)
	lockIn(t, session, "/shared", "c", etcdlock.Exclusive)
	if got := sketch(look(t, client, "/shared")); got != "held shared library:a library:b <library:c" {
		t.Error(got)
	}
	for _, id := range []string{"a", "b", "c"} {
		lockIn(t, session, "/slots", id, etcdlock.Slots(2))
	}
	line = look(t, client, "/slots")
	if got := sketch(line); got != "held slots library:a library:b <library:c" || line.Slots != 2 || *line.Holders[1].Slot == *line.Holders[0].Slot {
		t.Errorf("%s: %+v", got, line)
	}
	first := mutex(t, client, "/etcd")
	lockIn(t, session, "/etcd", "b", etcdlock.Exclusive)
	if got, want := sketch(look(t, client, "/etcd")), fmt.Sprintf("held exclusive etcd:etcd (lease %x) <library:b", first.Lease()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := client.Put(ctx, "/hand", "keep out"); err != nil {
		t.Fatal(err)
	}
	lockIn(t, session, "/hand", "b", etcdlock.Exclusive)
	if got := sketch(look(t, client, "/hand")); got != "by-hand exclusive by-hand:keep out <library:b" {
		t.Error(got)
	}
	if _, err := client.Delete(ctx, "/hand"); err != nil {
		t.Fatal(err)
	}
}

// list returns the keys of all locks below a prefix.
func list(t *testing.T, client *clientv3.Client, prefix string) (keys []string) {
	t.Helper()
	for line, err := range admin.List(etcdtest.Context(t), client, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, line.Key)
	}
	return keys
}

// TestList: locks are found among keys of which no value is read, whatever their names are.
func TestList(t *testing.T) {
	for name, most := range map[string]uint{"usual": 128, "few operations": 8} {
		t.Run(name, func(t *testing.T) {
			s := etcdtest.Start(t, etcdtest.WithMaxTxnOps(most))
			client, ctx := s.Client(t), etcdtest.Context(t)
			const others = 1500 // more than a page
			value := strings.Repeat("x", 10<<10)
			for i := range others {
				if _, err := client.Put(ctx, fmt.Sprintf("/jobs/%d", i), value); err != nil {
					t.Fatal(err)
				}
			}
			// What only looks like a place, and what that would be a place of.
			large := strings.Repeat("x", 300<<10)
			for _, key := range []string{"/data", "/data/1234", "/data/1f-7", "/data/~ada", "/data/=12.ada"} {
				if _, err := client.Put(ctx, key, large); err != nil {
					t.Fatal(err)
				}
			}
			session := newSession(t, client)
			for _, key := range []string{"/jobs/z", "/jobs/a", "/jobs/a/b", "/other", "/jobs/\xff"} {
				lockIn(t, session, key, "me", etcdlock.Exclusive)
			}
			mutex(t, client, "/jobs/m")
			config := s.Config()
			config.MaxCallRecvMsgSize = 256 << 10
			small := etcdtest.Dial(t, config)
			if got, want := fmt.Sprintf("%q", list(t, small, "/jobs/")), `["/jobs/a" "/jobs/a/b" "/jobs/m" "/jobs/z" "/jobs/\xff"]`; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if got := list(t, small, ""); len(got) != 6 {
				t.Errorf("all: %q", got)
			}
			if got := list(t, small, "/none"); len(got) != 0 {
				t.Errorf("nothing: %q", got)
			}
			if got := list(t, small, "/data"); len(got) != 0 {
				t.Errorf("data: %q", got)
			}
		})
	}
}

// TestCompacted: what is read is one revision, and if etcd forgets it meanwhile, another one.
func TestCompacted(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	lockIn(t, newSession(t, client), "/z", "me", etcdlock.Exclusive)
	for i := range 1100 {
		if _, err := client.Put(ctx, fmt.Sprintf("/other/%d", i), ""); err != nil {
			t.Fatal(err)
		}
	}
	gate, behind := s.Gated(t)
	var compacted atomic.Int64
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if r, is := message.(*pb.RangeRequest); is && r.Revision > 0 && compacted.Add(1) == 1 {
			resp, err := client.Put(ctx, "/other/last", "")
			if err == nil {
				_, err = client.Compact(ctx, resp.Header.Revision)
			}
			if err != nil {
				t.Error(err)
			}
		}
		return etcdtest.Pass
	})
	if got := list(t, behind, ""); len(got) != 1 || compacted.Load() < 2 {
		t.Errorf("got %q, after %d pages", got, compacted.Load())
	}
}

// TestMayOnlyRead: permission to read is enough.
func TestMayOnlyRead(t *testing.T) {
	s := etcdtest.Start(t)
	root, ctx := s.Client(t), etcdtest.Context(t)
	if _, err := root.RoleAdd(ctx, "sees"); err != nil {
		t.Fatal(err)
	}
	if _, err := root.RoleGrantPermission(ctx, "sees", "/jobs/", clientv3.GetPrefixRangeEnd("/jobs/"), clientv3.PermissionType(clientv3.PermRead)); err != nil {
		t.Fatal(err)
	}
	config := s.AddUser(t, "eye", "pass")
	if _, err := root.UserGrantRole(ctx, "eye", "sees"); err != nil {
		t.Fatal(err)
	}
	s.EnableAuth(t, "secret")
	session := newSession(t, s.Client(t))
	lockIn(t, session, "/jobs/a", "me", etcdlock.Exclusive)
	eye := etcdtest.Dial(t, config)
	if got := list(t, eye, "/jobs/"); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	if got := look(t, eye, "/jobs/a"); got.State != admin.Held || got.Holders[0].TTL != ttl {
		t.Errorf("got %+v", got)
	}
	for _, err := range admin.List(ctx, eye, "/") {
		if err == nil {
			t.Error("it lists what it may not read")
		}
	}
}

// TestManyWaiters: a line is shown whole, however long it is.
func TestManyWaiters(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	const waiters = 2500
	session := newSession(t, client)
	lockIn(t, session, "/long", "me", etcdlock.Exclusive)
	grant := granted(t, client)
	for i := range waiters {
		key := fmt.Sprintf("/long/~%x-%d", grant.ID, i+1)
		if _, err := client.Put(ctx, key, fmt.Sprintf(`{"v":1,"id":"w%d"}`, i+1), clientv3.WithLease(grant.ID)); err != nil {
			t.Fatal(err)
		}
	}
	line := look(t, client, "/long")
	if n := len(line.Waiters); n != waiters || line.Waiters[n-1].ID != fmt.Sprintf("w%d", waiters) || line.Waiters[0].ID != "w1" {
		t.Errorf("%d waiters", n)
	}
	if _, err := client.Revoke(ctx, grant.ID); err != nil {
		t.Fatal(err)
	}
}

// TestOddRecords: anybody may write a record, and none makes the JSON of a line fail.
func TestOddRecords(t *testing.T) {
	s := etcdtest.Start(t)
	client, ctx := s.Client(t), etcdtest.Context(t)
	grant := granted(t, client)
	for i, value := range []string{`{"v":1,"id":"a","pid":-7,"slot":-3,"kind":"\u001b[31m\nb"}`, `{"v":1,"id":"b","since":"9999-12-31T23:59:59-23:59"}`, `{"slot":7,"v":1}`, `[]`} {
		if _, err := client.Put(ctx, fmt.Sprintf("/odd/~%x-%d", grant.ID, i+1), value, clientv3.WithLease(grant.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Put(ctx, "/odd", "me", clientv3.WithLease(grant.ID)); err != nil {
		t.Fatal(err)
	}
	if line := look(t, client, "/odd"); len(line.Waiters) != 4 || line.Waiters[0].Kind != admin.Library {
		t.Errorf("%+v", line)
	}
}

// TestSchema: the schema takes nothing that it does not name.
func TestSchema(t *testing.T) {
	schema := schemaOf(t, "lock")
	for _, text := range []string{`{"key":"a","state":"gone","waiters":[]}`, `{"state":"free","waiters":[]}`, `{"key":"a","state":"free"}`,
		`{"key":"a","state":"held","waiters":[],"holder":{"nonce":"7"}}`, `{"key":"a","state":"held","waiters":[],"holder":{"joined":"2026-11-29T03:00:01+01:00"}}`,
		`{"key":"a","state":"held","waiters":[{"place":1,"ttl":1}]}`} {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if schema.Validate(value) == nil {
			t.Errorf("it takes %s", text)
		}
	}
}

// TestJSON: durations are seconds, and what is not known is absent.
func TestJSON(t *testing.T) {
	line := admin.Line{Key: "\xff", State: admin.Held, Mode: "shared", Holders: []admin.Holder{
		{Contender: admin.Contender{ID: "a", Nonce: 7}, TTL: 15 * time.Second, TTLLeft: 1500 * time.Millisecond}, {}}}
	got, err := json.Marshal(line)
	const want = `{"key_base64":"/w==","state":"held","mode":"shared","holder":{"id":"a","nonce":7,"ttl":15,"ttl_left":1.5},` +
		`"holders":[{"id":"a","nonce":7,"ttl":15,"ttl_left":1.5},{}],"waiters":[]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

// TestNoTTLs: if etcd does not tell in time how long leases have left, the rest is there. A
// semaphore of one slot, which somebody has put by hand, is one in JSON as well.
func TestNoTTLs(t *testing.T) {
	s := etcdtest.Start(t)
	client := s.Client(t)
	grant := granted(t, client)
	lease := clientv3.WithLease(grant.ID)
	operate(t, client, clientv3.OpPut(fmt.Sprintf("/silent/=1.%x-1", grant.ID), `{"slot":0,"v":1,"id":"me"}`, lease), clientv3.OpPut("/silent/=1#0", "me", lease))
	gate, behind := s.Gated(t)
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	gate.Intercept(func(_ string, message proto.Message) etcdtest.Verdict {
		if _, is := message.(*pb.LeaseTimeToLiveRequest); is {
			cancel()
			return etcdtest.Drop
		}
		return etcdtest.Pass
	})
	all, revision, err := admin.Locks(ctx, behind, "/silent")
	if err != nil || len(all) != 1 || ctx.Err() == nil || all[0].Holders[0].TTL != 0 || all[0].Slots != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	checkSchema(t, schemaOf(t, "lock"), all[0])
	if all[0].Revision != revision || revision == 0 {
		t.Errorf("revision %d, and %d of the line", revision, all[0].Revision)
	}
}
