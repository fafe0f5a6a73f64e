// Package batch sends transactions of several locks as one, which etcd commits once. Each of them
// is applied or refused by itself. Reads of keys go together as well, apart from what writes: so
// what many locks ask for does not become more for etcd when that is slow.
package batch

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/etcdlock/etcdlock/internal/oplimit"
	"github.com/etcdlock/etcdlock/internal/retry"
	"github.com/etcdlock/etcdlock/internal/wire"
)

const (
	// atOnce is how many requests are under way before others wait for company. With one, etcd
	// would have nothing to do while an answer travels.
	atOnce = 2

	// patience is how long a request counts as under way, at least: a silent member must not hold
	// others up. Where the last answer has taken long, it is as many times that, mostPatience at
	// most: an etcd that has too much to do would get more and smaller requests instead.
	patience     = 25 * time.Millisecond
	times        = 4
	mostPatience = 500 * time.Millisecond

	// mostBytes bounds the size of a request: etcd takes 1.5 MiB, unless it was set up otherwise.
	mostBytes = 512 << 10

	// apart is how long deletions are not sent with what puts keys, after etcd had no space: it
	// takes them also then. For as long, what is for a lock that was refused is sent alone.
	apart = 5 * time.Second
)

// errMixed is what a deletion fails with that was sent with a put for which etcd had no space. The
// outcome is unknown: etcd has carried out the request with which it notices.
var errMixed = errors.New("etcd has no space for what was sent with this request")

// A Queue is the transactions that wait while others are under way.
type Queue struct {
	send  func(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error)
	limit *oplimit.Limit
	form

	mu        sync.Mutex
	waiting   []*member
	gone      int                 // how many of these were given up
	apiece    map[subject]*member // what waits, and was not given up
	underWay  []flight
	flights   uint64        // how many there were
	took      time.Duration // from the last request to its answer
	patience  time.Duration
	apart     time.Time            // until when deletions are sent apart
	alone     map[string]time.Time // until when what is for a lock is sent alone
	mostBytes int
	overdue   *time.Timer
}

// A flight is one request that is under way.
type flight struct {
	n     uint64
	since time.Time
}

// A member is one transaction that waits, or is in a batch.
type member struct {
	ctx    context.Context
	lock   string
	req    *pb.TxnRequest
	puts   bool
	ops    int           // see wire.Ops
	size   int           // see sizeOf
	tries  int           // that wait for it; 0: it was given up
	again  bool          // there was more than one: ctx is that of the first
	in     *batch        // nil as long as it waits
	done   chan struct{} // closed when it is answered
	answer answer
}

func (m *member) answered(resp *pb.TxnResponse, err error) {
	m.answer = answer{resp, err}
	close(m.done)
}

type answer struct {
	resp *pb.TxnResponse
	err  error
}

// A batch is members that are sent as one.
type batch struct {
	all    []*member
	ops    int // operations, as etcd counts them
	size   int // see sizeOf
	left   int // how many still wait for the answer; guarded by the queue's mu
	cancel context.CancelFunc
}

// New returns a queue of what writes, or of reads, that sends with a function, no more operations
// at once than a limit allows.
func New(form form, send func(ctx context.Context, req *pb.TxnRequest) (*pb.TxnResponse, error), limit *oplimit.Limit) *Queue {
	q := &Queue{form: form, send: send, limit: limit, patience: patience, mostBytes: mostBytes, apiece: make(map[subject]*member), alone: make(map[string]time.Time)}
	q.overdue = time.AfterFunc(time.Hour, q.hurry)
	q.overdue.Stop()
	return q
}

// Do sends a transaction for one lock, at once, or together with others if enough are under way.
// Where something waits to be written for that lock already it goes at once as well: they cannot go
// together, and a crowd that joins one line would go one by one. If what waits is the same request,
// this is another try, and waits with it. It blocks until etcd answers, or ctx is done. All errors
// but refusals leave unknown whether it was applied.
func (q *Queue) Do(ctx context.Context, lock string, req *pb.TxnRequest) (*pb.TxnResponse, error) {
	q.mu.Lock()
	if len(q.waiting) == 0 && q.hasRoomLocked() {
		f := q.startLocked()
		q.mu.Unlock()
		resp, err := q.send(ctx, req)
		q.end(f, err)
		return resp, err
	}
	m := q.apiece[q.of(lock, req)]
	switch {
	case m == nil:
		m = q.waitLocked(ctx, lock, req)
	case m.req == req:
		m.tries, m.again = m.tries+1, true
	default:
		q.mu.Unlock()
		return q.send(ctx, req)
	}
	q.mu.Unlock()
	select {
	case <-m.done:
		return m.answer.resp, m.answer.err
	case <-ctx.Done():
		q.giveUp(m)
		return nil, ctx.Err()
	}
}

// waitLocked has a transaction wait.
func (q *Queue) waitLocked(ctx context.Context, lock string, req *pb.TxnRequest) *member {
	m := &member{ctx: ctx, lock: lock, req: req, puts: puts(req), ops: wire.Ops(req), size: sizeOf(req), tries: 1, done: make(chan struct{})}
	q.apiece[q.of(lock, req)] = m
	q.waiting = append(q.waiting, m)
	q.nextLocked()
	return m
}

// patienceLocked returns how long a request counts as under way.
func (q *Queue) patienceLocked() time.Duration {
	return max(q.patience, min(times*q.took, mostPatience))
}

// hasRoomLocked reports whether another request may be sent. What has been under way for long does
// not count any more.
func (q *Queue) hasRoomLocked() bool {
	if len(q.underWay) == atOnce {
		long := time.Now().Add(-q.patienceLocked())
		q.underWay = slices.DeleteFunc(q.underWay, func(f flight) bool { return f.since.Before(long) })
	}
	return len(q.underWay) < atOnce
}

func (q *Queue) startLocked() flight {
	q.flights++
	f := flight{q.flights, time.Now()}
	q.underWay = append(q.underWay, f)
	return f
}

// end makes room for the next request, and sends that.
func (q *Queue) end(f flight, err error) {
	q.mu.Lock()
	q.underWay = slices.DeleteFunc(q.underWay, func(one flight) bool { return one.n == f.n })
	if took := time.Since(f.since); err == nil || took > q.took {
		q.took = took
	}
	q.nextLocked()
	q.mu.Unlock()
}

// hurry sends what waits behind requests that take long.
func (q *Queue) hurry() {
	q.mu.Lock()
	q.nextLocked()
	q.mu.Unlock()
}

// nextLocked sends what waits as long as there is room.
func (q *Queue) nextLocked() {
	for len(q.waiting) > 0 && q.hasRoomLocked() {
		b := q.takeLocked()
		if b.left == 0 { // all were given up
			break
		}
		ctx := b.all[0].ctx
		if b.left > 1 || b.all[0].again { // it goes on when one of them is given up
			ctx, b.cancel = context.WithCancel(context.Background())
		}
		go q.run(ctx, b, q.startLocked())
	}
	if len(q.waiting) > 0 && len(q.underWay) > 0 { // until the oldest does not count any more
		q.overdue.Reset(q.patienceLocked() - time.Since(q.underWay[0].since))
	} else {
		q.overdue.Stop()
	}
}

// takeLocked takes what is sent next. No two of the transactions that write are of one lock: they
// would create places in one revision, and the order of these in line would not be known.
func (q *Queue) takeLocked() *batch {
	b := new(batch)
	now, most := time.Now(), q.limit.OpsAtOnce()
	unmixed := now.Before(q.apart)
	full := func() bool { return q.with(b, 0) > most || now.Before(q.alone[b.all[0].lock]) }
	fits := func(m *member) bool {
		return q.with(b, m.ops) <= most && b.size+m.size <= q.mostBytes &&
			!(unmixed && m.puts != b.all[0].puts) && !now.Before(q.alone[m.lock])
	}
	var rest []*member
	for i, m := range q.waiting {
		if m.tries == 0 {
			q.gone--
			continue
		}
		if len(b.all) > 0 && full() {
			rest = append(rest, q.waiting[i:]...)
			break
		}
		if len(b.all) == 0 || fits(m) {
			b.size, b.ops = b.size+m.size, q.with(b, m.ops)
			b.all, m.in = append(b.all, m), b
			delete(q.apiece, q.of(m.lock, m.req))
		} else {
			rest = append(rest, m)
		}
	}
	q.waiting, b.left = rest, len(b.all)
	return b
}

// giveUp ends a member that nobody waits for any more. What is under way goes on for the others.
func (q *Queue) giveUp(m *member) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.tries--; m.tries > 0 {
		return
	}
	if m.in == nil {
		delete(q.apiece, q.of(m.lock, m.req))
		if q.gone++; 2*q.gone > len(q.waiting) { // each is looked at twice at most
			q.waiting = slices.DeleteFunc(q.waiting, func(one *member) bool { return one.tries == 0 })
			q.gone = 0
		}
		return
	}
	if m.in.left--; m.in.left == 0 && m.in.cancel != nil {
		m.in.cancel()
	}
}

// run sends a batch, and tells each member what came of it.
func (q *Queue) run(ctx context.Context, b *batch, f flight) {
	if len(b.all) == 1 {
		resp, err := q.send(ctx, b.all[0].req)
		if b.cancel != nil {
			b.cancel()
		}
		q.end(f, err)
		b.all[0].answered(resp, err)
		return
	}
	var reqs []*pb.TxnRequest
	for _, m := range b.all {
		reqs = append(reqs, m.req)
	}
	all := q.join(reqs)
	resp, err := q.send(ctx, all)
	b.cancel()
	q.learn(err, all)
	q.end(f, err)
	switch {
	case err == nil:
		for i, one := range q.divide(reqs, resp) {
			b.all[i].answered(one, nil)
		}
	case isForOne(err):
		for _, m := range b.all {
			go func() {
				resp, err := q.send(m.ctx, m.req)
				if isForOne(err) {
					q.keepAlone(m.lock)
				}
				m.answered(resp, err)
			}()
		}
	default:
		for _, m := range b.all {
			if retry.IsNoSpace(err) && !m.puts {
				m.answered(nil, errMixed)
			} else {
				m.answered(nil, err)
			}
		}
	}
}

// learn has later batches be such as etcd takes.
func (q *Queue) learn(err error, req *pb.TxnRequest) {
	q.limit.TooMany(err, wire.Ops(req))
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case retry.IsNoSpace(err):
		q.apart = time.Now().Add(apart)
	case retry.IsTooLarge(err):
		q.mostBytes = sizeOf(req) / 2
	}
}

// keepAlone has what is for a lock be sent alone for some time: it was refused, and would have each
// batch refused.
func (q *Queue) keepAlone(lock string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(q.alone, func(_ string, until time.Time) bool { return now.After(until) })
	q.alone[lock] = now.Add(apart)
}

// isForOne reports whether etcd has refused a batch for what may be the matter with one of its
// members: then each of them is sent alone. A refused token would be refused to each of them, and
// costs a login each time.
func isForOne(err error) bool {
	isToken := retry.Code(err) == codes.Unauthenticated || errors.Is(err, rpctypes.ErrUserEmpty) || errors.Is(err, rpctypes.ErrAuthOldRevision)
	return retry.IsRefused(err) && !isToken
}

// puts reports whether etcd refuses a transaction if it has no space.
func puts(req *pb.TxnRequest) bool {
	isPut := func(op *pb.RequestOp) bool {
		inner := op.GetRequestTxn()
		return op.GetRequestPut() != nil || inner != nil && puts(inner)
	}
	return slices.ContainsFunc(req.Success, isPut) || slices.ContainsFunc(req.Failure, isPut)
}

// besides is more than what an operation or a comparison takes besides what it names.
const besides = 128

// sizeOf returns how many bytes a transaction has when it is sent, at most. To have that counted
// takes longer than all else that is done for one that waits.
func sizeOf(req *pb.TxnRequest) (n int) {
	for _, c := range req.Compare {
		n += besides + len(c.Key) + len(c.RangeEnd) + len(c.GetValue())
	}
	for _, ops := range [2][]*pb.RequestOp{req.Success, req.Failure} {
		for _, op := range ops {
			n += besides
			switch op := op.Request.(type) {
			case *pb.RequestOp_RequestPut:
				n += len(op.RequestPut.Key) + len(op.RequestPut.Value)
			case *pb.RequestOp_RequestRange:
				n += len(op.RequestRange.Key) + len(op.RequestRange.RangeEnd)
			case *pb.RequestOp_RequestDeleteRange:
				n += len(op.RequestDeleteRange.Key) + len(op.RequestDeleteRange.RangeEnd)
			case *pb.RequestOp_RequestTxn:
				n += sizeOf(op.RequestTxn)
			}
		}
	}
	return n
}
