package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/etcdlock/etcdlock/internal/kind"
	"github.com/etcdlock/etcdlock/internal/oplimit"
	"github.com/etcdlock/etcdlock/internal/wire"
)

// A call is one request that an etcd is sent, which answers when the test says so.
type call struct {
	ctx    context.Context
	req    *pb.TxnRequest
	answer chan answer
}

// An etcd receives what a queue sends.
type etcd struct {
	*Queue
	calls chan call
}

func newEtcd() etcd {
	calls := make(chan call)
	return etcd{New(Writes{}, func(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error) {
		c := call{ctx, req, make(chan answer, 1)}
		calls <- c
		a := <-c.answer
		return a.resp, a.err
	}, new(oplimit.Limit)), calls}
}

// forget returns a transaction that only deletes, and write one that puts a key.
func forget(key string) *pb.TxnRequest { return wire.RemoveKey(key, 1) }
func write(key string) *pb.TxnRequest {
	return wire.AcquireIfFree(wire.Place{Lock: key, Key: key + "/1f-1", Lease: 0x1f}, false)
}

// lockOf returns the key that a transaction is about.
func lockOf(req *pb.TxnRequest) string { return string(req.Compare[0].Key) }

// locks returns those that a request is about, in order.
func (c call) locks() (all []string) {
	if len(c.req.Compare) > 0 {
		return []string{lockOf(c.req)}
	}
	for _, op := range c.req.Success {
		all = append(all, lockOf(op.GetRequestTxn()))
	}
	return all
}

// applied answers a call: each lock has a revision of its own, so that it shows which answer went
// to whom.
func (c call) applied() {
	resp := &pb.TxnResponse{Header: new(pb.ResponseHeader), Succeeded: true}
	for i, lock := range c.locks() {
		one := &pb.TxnResponse{Succeeded: i%2 == 0, Responses: []*pb.ResponseOp{{Response: &pb.ResponseOp_ResponsePut{
			ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: int64(lock[0])}}}}}}
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: one}})
	}
	if len(c.req.Compare) > 0 {
		resp = resp.Responses[0].GetResponseTxn()
	}
	c.answer <- answer{resp, nil}
}

// ask sends a transaction in the background, and returns where its answer comes.
func (e etcd) ask(t *testing.T, ctx context.Context, req *pb.TxnRequest) <-chan answer {
	t.Helper()
	return e.askFor(ctx, lockOf(req), req)
}

func (e etcd) askFor(ctx context.Context, lock string, req *pb.TxnRequest) <-chan answer {
	var before int
	e.await(func() bool { before = len(e.waiting) + int(e.flights); return true })
	got := make(chan answer, 1)
	go func() {
		resp, err := e.Do(ctx, lock, req)
		got <- answer{resp, err}
	}()
	// Until it waits, or is on its way.
	e.await(func() bool { return len(e.waiting)+int(e.flights) > before })
	return got
}

// await waits until something is so of the queue.
func (e etcd) await(is func() bool) {
	for ; ; time.Sleep(time.Microsecond) {
		e.mu.Lock()
		done := is()
		e.mu.Unlock()
		if done {
			return
		}
	}
}

// busy has as many requests under way as others wait for.
func (e etcd) busy(t *testing.T) (under []call) {
	t.Helper()
	for i := range atOnce {
		e.ask(t, t.Context(), write(fmt.Sprint("busy", i)))
		under = append(under, <-e.calls)
	}
	return under
}

// patiently makes the time so long after which a request does not count as under way that it does
// not matter to a test on a slow machine.
func (e etcd) patiently() etcd {
	e.patience = time.Hour
	return e
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("a request for %q, want %q", got, want)
	}
}

// TestAlone: who is alone does not wait, and the request is what was asked for.
func TestAlone(t *testing.T) {
	e := newEtcd().patiently()
	for range 3 {
		req := write("a")
		got := e.ask(t, t.Context(), req)
		c := <-e.calls
		if c.req != req {
			t.Errorf("sent: %v", c.req)
		}
		c.applied()
		if a := <-got; a.err != nil || !a.resp.Succeeded {
			t.Errorf("answered: %v", a)
		}
	}
}

// TestCompany: what comes while enough is under way is sent together, and each gets its own answer.
func TestCompany(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	names := []string{"a", "b", "c", "d", "e"}
	var got []<-chan answer
	for _, name := range names {
		got = append(got, e.ask(t, t.Context(), write(name)))
	}
	under[0].applied()
	c := <-e.calls
	check(t, c.locks(), names...)
	c.applied()
	for i, name := range names {
		a := <-got[i]
		if a.err != nil || a.resp.Succeeded != (i%2 == 0) || a.resp.Header == nil ||
			a.resp.Responses[0].GetResponsePut().Header.Revision != int64(name[0]) {
			t.Errorf("%s was answered %v", name, a)
		}
	}
	under[1].applied()
}

// TestOneOfEachLock: of each lock one transaction at most is in a request. Another one goes at
// once, alone, so that a crowd that joins one line does not go one by one.
func TestOneOfEachLock(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := e.ask(t, ctx, write("a"))
	e.ask(t, t.Context(), write("b"))
	for range 3 {
		go e.Do(t.Context(), "a", write("a"))
		c := <-e.calls
		check(t, c.locks(), "a")
		defer c.applied()
	}
	cancel()
	<-gone
	e.ask(t, t.Context(), write("a")) // the one that waited does not count any more
	e.ask(t, t.Context(), write("c"))
	for _, want := range [][]string{{"b", "a", "c"}, {"b"}} {
		under[0].applied()
		under[0] = <-e.calls
		check(t, under[0].locks(), want...)
		e.ask(t, t.Context(), write("b")) // none waits any more
	}
	under[0].applied()
	(<-e.calls).applied()
	under[1].applied()
}

// TestBounds: a request has no more members, and no more bytes, than etcd takes.
func TestBounds(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	most := e.limit.OpsAtOnce() - wire.Ops(write("k"))
	for i := range most + 1 {
		e.ask(t, t.Context(), write(fmt.Sprint("k", i)))
	}
	long := strings.Repeat("x", mostBytes/8)
	for i := range 3 { // each names the key five times
		e.ask(t, t.Context(), write(fmt.Sprint(i, long)))
	}
	for _, want := range []int{most, 2, 1, 1} {
		under[0].applied()
		under[0] = <-e.calls
		if n := len(under[0].locks()); n != want {
			t.Errorf("%d transactions in a request, want %d", n, want)
		}
	}
	under[0].applied()
	under[1].applied()
}

// TestSizeOf: no transaction has more bytes than it is taken for.
func TestSizeOf(t *testing.T) {
	widest := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: -1, Revision: -1, SortOrder: 2, SortTarget: 4, Serializable: true,
		KeysOnly: true, CountOnly: true, MinModRevision: -1, MaxModRevision: -1, MinCreateRevision: -1, MaxCreateRevision: -1}
	all := []*pb.TxnRequest{{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: widest}}}}}
	for _, sample := range kind.Samples() {
		all = append(all, sample.Txn)
	}
	long := wire.AcquireIfFree(wire.Place{Lock: strings.Repeat("k", 1000), Key: "k/1f-1", Lease: -1, Record: strings.Repeat("v", 5000)}, false)
	for _, req := range append(all, long, wire.Batch(append(all, long))) {
		if size, bytes := sizeOf(req), proto.Size(req); size < bytes || req == long && size > 2*bytes {
			t.Errorf("%d bytes are taken for %d, in a %q", bytes, size, kind.Of(req))
		}
	}
}

// TestGivenUp: what is given up before it was sent is not sent; what is under way goes on for the
// others, and is given up with the last of them.
func TestGivenUp(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	ctx, cancel := context.WithCancel(t.Context())
	gone := e.ask(t, ctx, write("gone"))
	cancel()
	if a := <-gone; !errors.Is(a.err, context.Canceled) {
		t.Errorf("given up: %v", a)
	}
	first, leave := context.WithCancel(t.Context())
	second, leaveToo := context.WithCancel(t.Context())
	a, b := e.ask(t, first, write("a")), e.ask(t, second, write("b"))
	under[0].applied()
	c := <-e.calls
	check(t, c.locks(), "a", "b")
	leave()
	if got := <-a; !errors.Is(got.err, context.Canceled) || c.ctx.Err() != nil {
		t.Errorf("one is given up: %v, %v", got, c.ctx.Err())
	}
	leaveToo()
	<-b
	<-c.ctx.Done()
	c.answer <- answer{nil, context.Canceled}
	under[1].applied()
}

// TestRefused: what is refused for one of its members is sent again for each of them alone. A token
// that is refused is so to all.
func TestRefused(t *testing.T) {
	for _, refusal := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrLeaseNotFound, rpctypes.ErrDuplicateKey, rpctypes.ErrRequestTooLarge} {
		e := newEtcd().patiently()
		under := e.busy(t)
		a, b := e.ask(t, t.Context(), write("a")), e.ask(t, t.Context(), write("b"))
		under[0].applied()
		(<-e.calls).answer <- answer{nil, refusal}
		for range 2 {
			c := <-e.calls
			if c.locks()[0] == "a" {
				c.answer <- answer{nil, refusal}
			} else {
				c.applied()
			}
		}
		if got := <-a; !errors.Is(got.err, refusal) {
			t.Errorf("a: %v, want %v", got, refusal)
		}
		if got := <-b; got.err != nil {
			t.Errorf("b: %v", got)
		}
		under[1].applied()
	}
	e := newEtcd().patiently()
	under := e.busy(t)
	a, b := e.ask(t, t.Context(), write("a")), e.ask(t, t.Context(), write("b"))
	under[0].applied()
	(<-e.calls).answer <- answer{nil, rpctypes.ErrInvalidAuthToken}
	for _, got := range []answer{<-a, <-b} {
		if !errors.Is(got.err, rpctypes.ErrInvalidAuthToken) {
			t.Errorf("a token that is refused: %v", got)
		}
	}
	under[1].applied()
}

// TestRefusedAlone: a lock for which everything is refused does not have each batch refused.
func TestRefusedAlone(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	a, b := e.ask(t, t.Context(), write("a")), e.ask(t, t.Context(), write("b"))
	under[0].applied()
	(<-e.calls).answer <- answer{nil, rpctypes.ErrPermissionDenied}
	for range 2 {
		if c := <-e.calls; c.locks()[0] == "a" {
			c.answer <- answer{nil, rpctypes.ErrPermissionDenied}
		} else {
			c.applied()
		}
	}
	<-a
	<-b
	e.ask(t, t.Context(), write("busy"))
	under[0] = <-e.calls
	for _, name := range []string{"b", "a", "c", "d"} {
		e.ask(t, t.Context(), write(name))
	}
	for _, want := range [][]string{{"b", "c", "d"}, {"a"}} {
		under[0].applied()
		under[0] = <-e.calls
		check(t, under[0].locks(), want...)
	}
	under[0].applied()
	under[1].applied()
}

// TestTooLarge: where etcd takes smaller requests, later ones are.
func TestTooLarge(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	ask := func() {
		for i := range 8 {
			e.ask(t, t.Context(), write(fmt.Sprint("k", i)))
		}
	}
	ask()
	under[0].applied()
	(<-e.calls).answer <- answer{nil, rpctypes.ErrRequestTooLarge}
	for range 8 {
		(<-e.calls).applied()
	}
	e.ask(t, t.Context(), write("busy"))
	under[0] = <-e.calls
	ask()
	for n := 0; n < 8; {
		under[0].applied()
		under[0] = <-e.calls
		if len(under[0].locks()) > 4 {
			t.Errorf("%d transactions in a request, of which half are too large", len(under[0].locks()))
		}
		n += len(under[0].locks())
	}
	under[0].applied()
	under[1].applied()
}

// TestTooMany: where etcd takes fewer operations, later requests have fewer.
func TestTooMany(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	for _, want := range []int{8, 3} { // of 10 operations 5 are left, of which a member has 2
		for i := range 8 {
			e.ask(t, t.Context(), write(fmt.Sprint("k", i)))
		}
		under[0].applied()
		under[0] = <-e.calls
		if n := len(under[0].locks()); n != want {
			t.Errorf("%d transactions, want %d", n, want)
		}
		if want == 8 {
			under[0].answer <- answer{nil, rpctypes.ErrTooManyOps}
			for range 8 {
				(<-e.calls).applied()
			}
			e.ask(t, t.Context(), write("busy"))
			under[0] = <-e.calls
		}
	}
	under[0].applied()
	(<-e.calls).applied()
	under[1].applied()
}

// TestNoSpace: without space the outcome is unknown to all. A deletion is told so in a way that has
// it made again, and for some time it is not sent with what etcd refuses.
func TestNoSpace(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	puts, deletes := e.ask(t, t.Context(), write("a")), e.ask(t, t.Context(), forget("b"))
	under[0].applied()
	(<-e.calls).answer <- answer{nil, rpctypes.ErrNoSpace}
	if got := <-puts; !errors.Is(got.err, rpctypes.ErrNoSpace) {
		t.Errorf("a put: %v", got)
	}
	if got := <-deletes; got.err != errMixed {
		t.Errorf("a deletion: %v", got)
	}
	e.ask(t, t.Context(), write("busy"))
	under[0] = <-e.calls
	for _, name := range []string{"a", "b", "c"} {
		e.ask(t, t.Context(), write(name))
		e.ask(t, t.Context(), forget("not "+name))
	}
	for _, want := range [][]string{{"a", "b", "c"}, {"not a", "not b", "not c"}} {
		under[0].applied()
		under[0] = <-e.calls
		check(t, under[0].locks(), want...)
	}
	under[0].applied()
	under[1].applied()
}

// TestUnknown: an outcome that is not known is so to each member.
func TestUnknown(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	a, b := e.ask(t, t.Context(), write("a")), e.ask(t, t.Context(), write("b"))
	under[0].applied()
	(<-e.calls).answer <- answer{nil, context.DeadlineExceeded}
	for _, got := range []answer{<-a, <-b} {
		if !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("answered: %v", got)
		}
	}
	under[1].applied()
}

// TestSilence: requests that are not answered do not hold others up for long, nor those that come
// later.
func TestSilence(t *testing.T) {
	e := newEtcd()
	under := e.busy(t)
	for _, name := range []string{"a", "b", "c"} {
		e.ask(t, t.Context(), write(name))
		c := <-e.calls
		check(t, c.locks(), name)
		under = append(under, c)
	}
	for _, c := range under {
		c.applied()
	}
}

// TestAnotherTry: another try of what still waits is not sent besides, and goes on when the first
// one is given up.
func TestAnotherTry(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	req, other := write("a"), write("a")
	ctx, cancel := context.WithCancel(t.Context())
	gone := e.ask(t, ctx, req)
	again := make(chan answer, 1)
	go func() {
		resp, err := e.Do(t.Context(), "a", req)
		again <- answer{resp, err}
	}()
	e.await(func() bool { return e.apiece[subject{lock: "a"}].tries == 2 })
	go e.Do(t.Context(), "a", other) // is sent at once
	(<-e.calls).applied()
	cancel()
	<-gone
	under[0].applied()
	c := <-e.calls
	if c.req != req || c.ctx.Err() != nil {
		t.Errorf("sent: %v, %v", c.req, c.ctx.Err())
	}
	c.applied()
	if a := <-again; a.err != nil || !a.resp.Succeeded {
		t.Errorf("answered: %v", a)
	}
	under[1].applied()
	e.await(func() bool { return len(e.underWay) == 0 && len(e.apiece) == 0 })
}

// TestPatience: where answers take long, others are waited for as well, for some time; an answer
// that is quick again ends that.
func TestPatience(t *testing.T) {
	e := newEtcd()
	patience := func() time.Duration {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.patienceLocked()
	}
	answered := func(err error) {
		f := flight{since: time.Now().Add(-100 * time.Millisecond)}
		e.end(f, err)
	}
	if got := patience(); got != e.Queue.patience {
		t.Errorf("%v, before there was an answer", got)
	}
	answered(nil)
	if got := patience(); got < times*100*time.Millisecond || got > mostPatience {
		t.Errorf("%v, after an answer that took 100 ms", got)
	}
	e.end(flight{since: time.Now()}, context.Canceled)
	if got := patience(); got < times*100*time.Millisecond {
		t.Errorf("%v, after something that was given up at once", got)
	}
	e.end(flight{since: time.Now().Add(-time.Hour)}, context.DeadlineExceeded)
	if got := patience(); got != mostPatience {
		t.Errorf("%v, after something that was not answered for an hour", got)
	}
	e.end(flight{since: time.Now().Add(time.Second)}, nil)
	if got := patience(); got != e.Queue.patience {
		t.Errorf("%v, after a quick answer", got)
	}
}

// TestOldest: what waits is sent when the oldest request does not count any more, however long that
// had been under way when it came.
func TestOldest(t *testing.T) {
	e := newEtcd().patiently()
	under := e.busy(t)
	e.mu.Lock()
	e.underWay[0].since = time.Now().Add(100*time.Millisecond - e.Queue.patience)
	e.mu.Unlock()
	e.ask(t, t.Context(), write("a"))
	c := <-e.calls
	check(t, c.locks(), "a")
	for _, c := range append(under, c) {
		c.applied()
	}
}

// TestReads: reads of keys go together, also of one lock, as one read, and each gets what it has
// asked for. Not together goes what etcd would not take at once.
func TestReads(t *testing.T) {
	e := newEtcd()
	e.Queue = New(Reads{}, e.Queue.send, new(oplimit.Limit))
	e.Queue.patience = time.Hour
	var under []call
	for i := range atOnce {
		e.askFor(t.Context(), "", wire.ProbeRead(fmt.Sprint("busy", i)))
		under = append(under, <-e.calls)
	}
	var got []<-chan answer
	for i := range 50 {
		got = append(got, e.askFor(t.Context(), "", wire.KeyRead("a", fmt.Sprint("b", i))))
	}
	left := len(got)
	for left > 0 {
		under[0].found()
		under[0] = <-e.calls
		n := len(under[0].req.Success)
		if _, is := IsRead(under[0].req); !is || n != min(2*left, 96) {
			t.Fatalf("%d reads in one, with %d left", n, left)
		}
		left -= n / 2
	}
	for _, c := range under {
		c.found()
	}
	for i, one := range got {
		a := <-one
		if a.err != nil || len(a.resp.Responses) != 2 || string(wire.Got(a.resp, 0).Key) != "a" || string(wire.Got(a.resp, 1).Key) != fmt.Sprint("b", i) || a.resp.Header == nil {
			t.Errorf("%d: %v", i, a)
		}
	}
}

// TestIsRead: ranges and what writes are no reads of keys.
func TestIsRead(t *testing.T) {
	for _, tt := range []struct {
		req  *pb.TxnRequest
		want bool
	}{
		{wire.KeyRead("a", "b"), true},
		{wire.ProbeRead("a"), true},
		{new(pb.TxnRequest), false},
		{wire.NamesRead("a", 1), false},
		{wire.HistoryRead("a", "a/1-1", 7), false},
		{wire.RemoveKey("a", 1), false},
		{wire.AcquireIfFree(wire.Place{Lock: "a", Key: "a/1-1"}, true), false},
	} {
		if key, got := IsRead(tt.req); got != tt.want || got && key != "a" {
			t.Errorf("%v: %v, %q", tt.req, got, key)
		}
	}
}

// found answers a call of reads: each finds its key.
func (c call) found() {
	resp := &pb.TxnResponse{Header: new(pb.ResponseHeader), Succeeded: true}
	for _, op := range c.req.Success {
		kv := &mvccpb.KeyValue{Key: op.GetRequestRange().Key}
		resp.Responses = append(resp.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{
			ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}}}})
	}
	c.answer <- answer{resp, nil}
}
