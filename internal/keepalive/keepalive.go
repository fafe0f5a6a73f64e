// Package keepalive renews all leases of a client by one LeaseKeepAlive stream. Etcd's client has a
// user log in for each stream that it opens, and a login costs etcd more than a thousand renewals.
//
// A second stream is opened only while the first one is silent: the client's round robin brings it
// to another member. The one that answers first stays, and the other one is ended.
//
// Lock order: the registry of the renewers before renewer.mu.
package keepalive

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/boottime"
	"github.com/etcdlock/etcdlock/internal/perclient"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// A renewer renews the leases of a client.
type renewer struct {
	client *clientv3.Client
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex
	first   time.Duration         // after which an answer that does not come means silence
	streams []*stream             // the newest last
	asked   map[*renewal]struct{} // what was not answered yet
	users   int                   // who will ask again
	idle    *time.Timer           // runs while there is nobody who asks or will
	pause   time.Duration         // before the next stream is opened, if there is none
	refused bool                  // the last one
	again   *time.Timer           // runs during that pause
}

// A renewal is one request to renew a lease. It is sent on each stream that there is, until it is
// answered on one.
type renewal struct {
	id      clientv3.LeaseID
	failed  func(error) // told why it has to be sent again
	done    chan struct{}
	answer  Answer
	refused error // why there is no answer
}

// An Answer is etcd's answer to a renewal.
type Answer struct {
	TTL  int64            // in seconds
	Term uint64           // the raft term of the member that answered
	Sent boottime.Instant // when the request was sent
}

// A sent is a renewal that was sent on a stream at a certain time.
type sent struct {
	*renewal
	at boottime.Instant
}

// A stream is one LeaseKeepAlive stream. Etcd answers what is sent on it in order. All but ctx and
// end are guarded by renewer.mu.
type stream struct {
	ctx context.Context
	end context.CancelFunc

	open     bool
	patience time.Duration
	silence  *time.Timer // runs while an answer is due
	queue    []*renewal  // to be sent
	wake     chan struct{}
	sent     []sent // not answered
}

// renewers are those of this process.
var renewers = perclient.New[*renewer]()

// EndIdle ends a client's stream if nobody renews a lease.
func EndIdle(client *clientv3.Client) { renewers.EndIdle(client) }

// withRenewer calls do with what renews a client's leases. First is how long an answer may take.
func withRenewer(client *clientv3.Client, first time.Duration, do func(*renewer)) *renewer {
	renewers.Lock()
	defer renewers.Unlock()
	k := renewers.Of[client]
	if k == nil {
		k = &renewer{client: client, first: first, asked: make(map[*renewal]struct{})}
		// A program that ends gives its client a context that does, and still stops its work.
		k.ctx, k.stop = context.WithCancel(context.WithoutCancel(client.Ctx()))
		renewers.Of[client] = k
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.first = min(k.first, first)
	do(k)
	k.watchIdle()
	return k
}

// Keep keeps the stream of a client open until it is told that nobody will renew any more.
func Keep(client *clientv3.Client, first time.Duration) (noMore func()) {
	k := withRenewer(client, first, func(k *renewer) { k.users++ })
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.users--
		k.watchIdle()
	}
}

// Renew renews a lease. It does not give up before ctx is done, or the user may not renew it.
// Failed is told of each try that came to nothing.
func Renew(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, first time.Duration, failed func(error)) (a Answer, err error) {
	r := &renewal{id: id, failed: failed, done: make(chan struct{})}
	k := withRenewer(client, first, func(k *renewer) { k.ask(r) })
	select {
	case <-r.done:
	case <-ctx.Done():
		k.withdraw(r)
		return a, context.Cause(ctx)
	}
	switch {
	case r.refused != nil:
		return a, r.refused
	case r.answer.TTL <= 0:
		return a, rpctypes.ErrLeaseNotFound
	}
	return r.answer, nil
}

// EndIfIdle ends the stream if nobody needs it.
func (k *renewer) EndIfIdle() (ended bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.isIdle() {
		return false
	}
	k.stop()
	return true
}

// isIdle is called with mu locked, like the following.
func (k *renewer) isIdle() bool { return k.users == 0 && len(k.asked) == 0 }

// watchIdle sees to it that what nobody needs is ended, but not at once: the next turn may come
// soon.
func (k *renewer) watchIdle() {
	switch {
	case !k.isIdle():
		if k.idle != nil {
			k.idle.Stop()
			k.idle = nil
		}
	case k.idle == nil:
		k.idle = time.AfterFunc(perclient.IdleTimeout, func() { renewers.EndIdle(k.client) })
	}
}

func (k *renewer) ask(r *renewal) {
	k.asked[r] = struct{}{}
	for _, s := range k.streams {
		k.send(s, r)
	}
	if len(k.streams) == 0 && k.again == nil {
		k.open()
	}
}

// mostStreams is how many there are at most: the one that is silent, and the one that is to stand
// in for it.
const mostStreams = 2

// open opens a stream for all that is not answered.
func (k *renewer) open() {
	if len(k.streams) == mostStreams {
		k.drop(k.streams[0])
	}
	s := &stream{patience: k.first, wake: make(chan struct{}, 1)}
	if len(k.streams) > 0 { // etcd may be slow: both are given that time
		s.patience = retry.Growth * k.first
	}
	s.ctx, s.end = context.WithCancel(clientv3.WithRequireLeader(k.ctx))
	k.streams = append(k.streams, s)
	for r := range k.asked {
		k.send(s, r)
	}
	go func() { k.ended(s, k.serve(s)) }()
}

func (k *renewer) send(s *stream, r *renewal) {
	s.queue = append(s.queue, r)
	if s.silence == nil {
		k.listen(s)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// listen begins to wait for an answer. To open a stream may need a login, which takes longer.
func (k *renewer) listen(s *stream) {
	patience := s.patience
	if !s.open {
		patience = retry.Growth * k.first
	}
	s.silence = time.AfterFunc(patience, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if s.silence == nil || k.newest() != s {
			return
		}
		k.tell(context.DeadlineExceeded)
		k.open()
	})
}

// listenAgain waits anew for what is left to be answered.
func (k *renewer) listenAgain(s *stream) {
	s.heard()
	if len(s.sent)+len(s.queue) > 0 {
		k.listen(s)
	}
}

func (k *renewer) newest() *stream {
	if len(k.streams) == 0 {
		return nil
	}
	return k.streams[len(k.streams)-1]
}

// tell says to all who wait why they have to.
func (k *renewer) tell(why error) {
	for r := range k.asked {
		r.failed(why)
	}
}

func (s *stream) heard() {
	if s.silence != nil {
		s.silence.Stop()
		s.silence = nil
	}
}

// drop ends a stream.
func (k *renewer) drop(s *stream) {
	s.heard()
	s.end()
	k.streams = slices.DeleteFunc(k.streams, func(one *stream) bool { return one == s })
}

// withdraw takes back a request of which nobody wants the answer any more.
func (k *renewer) withdraw(r *renewal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.asked, r)
	k.watchIdle()
}

// serve opens a stream, and sends and receives until it breaks.
func (k *renewer) serve(s *stream) error {
	defer s.end()
	conn, err := pb.NewLeaseClient(k.client.ActiveConnection()).LeaseKeepAlive(s.ctx)
	if err != nil {
		return err
	}
	k.opened(s)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer s.end()
	sender.Go(func() {
		defer s.end()
		for r := k.next(s); r != nil; r = k.next(s) {
			if conn.Send(&pb.LeaseKeepAliveRequest{ID: int64(r.id)}) != nil {
				return
			}
		}
	})
	for {
		resp, err := conn.Recv()
		if err == nil {
			err = k.answered(s, resp)
		}
		if err != nil {
			return err
		}
	}
}

// opened takes note that what was sent on a stream may be answered from now on.
func (k *renewer) opened(s *stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s.open = true
	k.listenAgain(s)
}

// next waits for the next request to be sent on a stream, and notes the time. It returns nil when
// the stream has ended.
func (k *renewer) next(s *stream) *renewal {
	for {
		k.mu.Lock()
		for len(s.queue) > 0 {
			r := s.queue[0]
			s.queue = s.queue[1:]
			if _, wanted := k.asked[r]; wanted {
				s.sent = append(s.sent, sent{r, boottime.Now()})
				k.mu.Unlock()
				return r
			}
		}
		k.mu.Unlock()
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return nil
		}
	}
}

var errNotAsked = errors.New("etcd answers what it was not asked")

// answered passes an answer on.
func (k *renewer) answered(s *stream, resp *pb.LeaseKeepAliveResponse) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(s.sent) == 0 || int64(s.sent[0].id) != resp.ID {
		return errNotAsked
	}
	r, at := s.sent[0].renewal, s.sent[0].at
	s.sent = s.sent[1:]
	if _, wanted := k.asked[r]; wanted {
		delete(k.asked, r)
		r.answer = Answer{resp.TTL, resp.Header.GetRaftTerm(), at}
		close(r.done)
	}
	k.pause = 0
	k.listenAgain(s)
	if slices.Contains(k.streams, s) { // and not dropped for another that has answered, too
		k.settleFor(s)
	}
	k.watchIdle()
	return nil
}

// settleFor drops the other stream when one has answered.
func (k *renewer) settleFor(s *stream) {
	switch {
	case len(k.streams) == 1:
		return
	case k.newest() == s:
		s.patience = k.first
	default: // it is slow and not silent: the next time it may be so for longer
		s.patience = min(2*s.patience, retry.Growth*k.first)
	}
	for _, other := range slices.Clone(k.streams) {
		if other != s {
			k.drop(other)
		}
	}
}

// ended takes note that a stream has ended, and opens another one if somebody waits for that.
func (k *renewer) ended(s *stream, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(k.streams, s) {
		return
	}
	k.drop(s)
	why = rpctypes.Error(why)
	blamed := k.blame(s, why)
	if !blamed {
		k.tell(why)
	}
	if left := k.newest(); left != nil {
		k.listenAgain(left) // it may have been silent, and nobody stands in for it any more
		return
	}
	if k.ctx.Err() != nil || perclient.IsClosed(k.client) {
		return
	}
	refused := retry.IsRefused(why) && !blamed
	if refused != k.refused {
		k.pause, k.refused = 0, refused
	}
	switch {
	case refused && retry.IsDenied(why): // it will be again
		k.pause = retry.PauseRefused
	case refused: // for its token, or some, if a member that is behind does not know the next yet
		k.pause = min(max(4*k.pause, retry.PauseMin), retry.PauseRefused)
	default:
		k.pause = min(max(2*k.pause, retry.PauseMin), retry.PauseMax)
	}
	k.again = time.AfterFunc(k.pause, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.again = nil; len(k.streams) == 0 && len(k.asked) > 0 && k.ctx.Err() == nil {
			k.open()
		}
	})
}

// blame finds the lease that the user may not renew: etcd answers in order, and ends the stream
// instead of the answer that it refuses. That lease is asked for no more. The others are, on the
// next stream.
func (k *renewer) blame(s *stream, why error) bool {
	if !retry.IsDenied(why) || len(s.sent) == 0 {
		return false
	}
	r := s.sent[0].renewal
	if _, wanted := k.asked[r]; wanted {
		delete(k.asked, r)
		r.refused = why
		close(r.done)
		k.watchIdle()
	}
	return true
}
