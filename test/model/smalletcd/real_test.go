package smalletcd_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/wire"
	"github.com/etcdlock/etcdlock/test/model/smalletcd"
)

var (
	seed      = flag.Uint64("seed", 0, "the one sequence that is held against the real etcd; 0: several new ones")
	sequences = flag.Int("sequences", 30, "how many new sequences are held against the real etcd")
)

// length is how many steps a sequence has.
const length = 400

// An etcd is what a sequence of steps is made with.
type etcd interface {
	Txn(*pb.TxnRequest) (*pb.TxnResponse, error)
	Grant(lease int64) error
	Revoke(lease int64) error
	Compact(revision int64) error
}

// A realEtcd is an etcd that runs. Its errors are those of etcd's client.
type realEtcd struct {
	ctx    context.Context
	client *clientv3.Client
	kv     pb.KVClient
	lease  pb.LeaseClient
}

func newRealEtcd(t *testing.T) *realEtcd {
	client := etcdtest.Start(t).Client(t)
	conn := client.ActiveConnection()
	return &realEtcd{etcdtest.Context(t), client, pb.NewKVClient(conn), pb.NewLeaseClient(conn)}
}

// Txn leaves of the header what the small etcd has as well. Only the outermost header has more.
func (r *realEtcd) Txn(req *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp, err := r.kv.Txn(r.ctx, req)
	if err != nil {
		return nil, rpctypes.Error(err)
	}
	resp.Header = &pb.ResponseHeader{Revision: resp.Header.Revision}
	return resp, nil
}

func (r *realEtcd) Grant(id int64) error {
	_, err := r.lease.LeaseGrant(r.ctx, &pb.LeaseGrantRequest{ID: id, TTL: 3600})
	return rpctypes.Error(err)
}

func (r *realEtcd) Revoke(id int64) error {
	_, err := r.lease.LeaseRevoke(r.ctx, &pb.LeaseRevokeRequest{ID: id})
	return rpctypes.Error(err)
}

func (r *realEtcd) Compact(revision int64) error {
	_, err := r.kv.Compact(r.ctx, &pb.CompactionRequest{Revision: revision})
	return rpctypes.Error(err)
}

// empty deletes everything, compacts the history, and returns a small etcd that has the same.
func (r *realEtcd) empty(t *testing.T) *smalletcd.Store {
	t.Helper()
	leases, err := r.lease.LeaseLeases(r.ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		if err := r.Revoke(lease.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, req := range []*pb.TxnRequest{write(putOp("x", "", 0)), write(deleteOp("\x00", "\x00"))} {
		if _, err := r.Txn(req); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := r.Txn(wire.KeyRead("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Compact(resp.Header.Revision); err != nil {
		t.Fatal(err)
	}
	return smalletcd.New(resp.Header.Revision)
}

// TestAgainstRealEtcd makes random sequences of transactions and other requests with the small etcd
// and with a real one. Every answer must be the same, and so must what watches tell.
func TestAgainstRealEtcd(t *testing.T) {
	r := newRealEtcd(t)
	if *seed != 0 {
		newComparison(t, r, *seed).run()
		return
	}
	seen := make(outcomes)
	for range *sequences {
		c := newComparison(t, r, rand.Uint64())
		c.run()
		for what, n := range c.seen {
			seen[what] += n
		}
	}
	for _, what := range slices.Sorted(maps.Keys(seen)) {
		t.Logf("%6d %s", seen[what], what)
	}
	if *sequences >= 30 {
		seen.check(t)
	}
}

// A comparison is one sequence that is made with both.
type comparison struct {
	*generator
	t    *testing.T
	real *realEtcd
	seed uint64

	told   []*mvccpb.Event // what the small etcd has told
	watch  *recording      // what the real etcd tells
	seen   outcomes
	cancel context.CancelFunc
}

func newComparison(t *testing.T, r *realEtcd, seed uint64) *comparison {
	t.Helper()
	small := r.empty(t)
	c := &comparison{generator: newGenerator(seed, small), t: t, real: r, seed: seed, seen: make(outcomes)}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(r.ctx)
	c.watch = recordFrom(ctx, r.client, "\x00", "\x00", small.Revision()+1)
	return c
}

func (c *comparison) run() {
	defer c.cancel()
	for i := range length {
		step := c.next()
		if i < len(leases)-1 {
			step = grant(leases[i])
		}
		c.fork()
		next := c.small.Revision() + 1
		c.make(i, step)
		events, err := c.small.Events(next, []byte{0}, []byte{0})
		if err != nil {
			c.t.Fatalf("seed %d: %v", c.seed, err)
		}
		c.told = append(c.told, events...)
	}
	c.compareWatches()
}

// fork clones the small etcd now and then, and writes to the one of the two that it drops.
func (c *comparison) fork() {
	if !c.chance(30) {
		return
	}
	kept, dropped := c.small, c.small.Clone()
	if c.chance(50) {
		kept, dropped = dropped, kept
	}
	for range 3 {
		dropped.Txn(c.anything(2))
	}
	dropped.Expire(int64(pick(c.generator, leases...)))
	dropped.Grant(int64(pick(c.generator, leases...)))
	c.small = kept
}

// make makes a step with both, and compares the answers.
func (c *comparison) make(i int, s step) {
	c.t.Helper()
	got, gotErr := s.make(c.small)
	want, wantErr := s.make(c.real)
	c.seen[s.name+": "+outcome(want, wantErr)]++
	if !errors.Is(gotErr, wantErr) || !proto.Equal(got, want) {
		c.t.Fatalf("seed %d, step %d: %s\n%s\nthe small etcd: %v\n%s\nthe real one: %v\n%s",
			c.seed, i, s.name, prototext.Format(s.txn),
			gotErr, prototext.Format(got), wantErr, prototext.Format(want))
	}
}

// compareWatches compares the events of the whole sequence, and of some watches that begin in its
// past.
func (c *comparison) compareWatches() {
	ctx, cancel := context.WithCancel(c.real.ctx)
	defer cancel()
	var past []*recording
	first := c.small.Compacted() - 2
	for range 8 {
		from := first + c.rand.Int64N(c.small.Revision()+2-first)
		if from == c.start {
			from++ // in that revision the real one was emptied
		}
		key, end := c.interval()
		if end != "" && end != "\x00" && end <= key {
			end = "" // etcd refuses a watch of no key
		}
		past = append(past, recordFrom(ctx, c.real.client, key, end, from))
	}
	// The last revision has an event for each watch.
	keys := map[string]bool{"k": true}
	for _, w := range past {
		keys[w.key] = true
	}
	var puts []*pb.RequestOp
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		puts = append(puts, putOp(key, "last", 0))
	}
	last := c.small.Revision() + 1
	c.make(length, step{name: "last", txn: write(puts...)})
	events, err := c.small.Events(last, []byte{0}, []byte{0})
	if err != nil {
		c.t.Fatalf("seed %d: %v", c.seed, err)
	}
	c.compareEvents(c.watch, append(c.told, events...), nil)
	for _, w := range past {
		events, err := c.small.Events(w.from, []byte(w.key), []byte(w.end))
		if err == nil && w.from == c.small.Compacted() && twice(events, w.from) {
			continue // the real one may have compacted one of the two
		}
		c.compareEvents(w, events, err)
	}
}

// twice reports whether a revision has two events of one key.
func twice(events []*mvccpb.Event, revision int64) bool {
	seen := make(map[string]bool)
	for _, e := range events {
		if e.Kv.ModRevision == revision && seen[string(e.Kv.Key)] {
			return true
		}
		seen[string(e.Kv.Key)] = e.Kv.ModRevision == revision
	}
	return false
}

func (c *comparison) compareEvents(w *recording, want []*mvccpb.Event, wantErr error) {
	c.t.Helper()
	got, err := w.until(c.small.Revision())
	c.seen["watch: "+outcome(nil, err)]++
	first := 0
	for first < min(len(got), len(want)) && proto.Equal(got[first], want[first]) {
		first++
	}
	if !errors.Is(err, wantErr) || first < max(len(got), len(want)) {
		c.t.Fatalf("seed %d: a watch of %q to %q from %d\n%d events are the same, then\n"+
			"the small etcd: %v\n%v\nthe real one: %v\n%v", c.seed, w.key, w.end, w.from, first,
			wantErr, few(want[first:]), err, few(got[first:]))
	}
}

// few returns the first of some events, to be printed.
func few(events []*mvccpb.Event) []*mvccpb.Event { return events[:min(len(events), 5)] }

// A recording is what a watch of the real etcd tells.
type recording struct {
	key, end string
	from     int64
	watch    clientv3.WatchChan
}

func recordFrom(ctx context.Context, client *clientv3.Client, key, end string, from int64) *recording {
	opts := []clientv3.OpOption{clientv3.WithRev(from)}
	if end != "" {
		opts = append(opts, clientv3.WithRange(end))
	}
	return &recording{key, end, from, client.Watch(ctx, key, opts...)}
}

// until returns the events up to a revision, which has one for the watch. All events of a revision
// come in one response.
func (r *recording) until(revision int64) (events []*mvccpb.Event, err error) {
	for resp := range r.watch {
		if err := resp.Err(); err != nil {
			return events, rpctypes.Error(err)
		}
		for _, e := range resp.Events {
			events = append(events, (*mvccpb.Event)(e))
		}
		if n := len(events); n > 0 && events[n-1].Kv.ModRevision >= revision {
			return events, nil
		}
	}
	return events, errors.New("the watch ended")
}

// outcomes counts what came of the steps of all kinds.
type outcomes map[string]int

func outcome(resp *pb.TxnResponse, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case resp == nil || resp.Succeeded:
		return "done"
	}
	return "refused"
}

// check finds transactions and errors that no sequence had.
func (o outcomes) check(t *testing.T) {
	t.Helper()
	for _, s := range kind.Samples() {
		if o[s.Name+": done"] == 0 {
			t.Errorf("no %s was done", s.Name)
		}
		if len(s.Txn.Compare) > 0 && o[s.Name+": refused"] == 0 {
			t.Errorf("no %s was refused", s.Name)
		}
	}
	for what, err := range map[string]error{
		"Acquire":     rpctypes.ErrLeaseNotFound,
		"HistoryRead": rpctypes.ErrCompacted,
		"operator":    rpctypes.ErrKeyNotFound,
		"anything":    rpctypes.ErrDuplicateKey,
		"read":        rpctypes.ErrFutureRev,
		"malformed":   rpctypes.ErrTooManyOps,
		"grant":       rpctypes.ErrLeaseExist,
		"revoke":      rpctypes.ErrLeaseNotFound,
		"compact":     rpctypes.ErrCompacted,
		"watch":       rpctypes.ErrCompacted,
	} {
		if o[fmt.Sprintf("%s: %v", what, err)] == 0 {
			t.Errorf("no %s had the error %v", what, err)
		}
	}
}

// TestAllOrNone: of two locks, one of which is taken, neither is: nothing is written. When both are
// free they are taken in one revision. So it is with the small etcd and with a real one.
func TestAllOrNone(t *testing.T) {
	r := newRealEtcd(t)
	for _, shares := range []bool{false, true} {
		for taken := range 2 {
			small := r.empty(t)
			for _, e := range []etcd{small, r} {
				for lease := range int64(2) {
					if err := e.Grant(lease + 1); err != nil {
						t.Fatal(err)
					}
				}
				do := func(txn *pb.TxnRequest) *pb.TxnResponse {
					t.Helper()
					resp, err := e.Txn(txn)
					if err != nil {
						t.Fatal(err)
					}
					return resp
				}
				var each []*pb.TxnRequest
				for _, lock := range []string{"k", "l"} {
					one := wire.AcquireIfFree(newPlace(lock, 1, 1, true), false)
					if shares {
						p := newPlace(lock, 1, 1, false)
						p.Key = wire.SharedPlace(lock, p.Lease, 1)
						one = wire.ShareIfFree(p)
					}
					each = append(each, one)
				}
				other := newPlace([]string{"k", "l"}[taken], 2, 1, true)
				do(wire.AcquireIfFree(other, false))
				before := do(wire.KeyRead("k")).Header.Revision
				if resp := do(wire.AcquireAllIfFree(each)); resp.Succeeded || resp.Header.Revision != before {
					t.Errorf("%T: lock %d is taken, and both are acquired: %v, revision %d after %d", e, taken, resp.Succeeded, resp.Header.Revision, before)
				}
				do(wire.Release(other, before, true))
				if resp := do(wire.AcquireAllIfFree(each)); !resp.Succeeded || resp.Header.Revision != before+2 {
					t.Errorf("%T: both are free: %v, revision %d after %d", e, resp.Succeeded, resp.Header.Revision, before)
				}
			}
		}
	}
}
