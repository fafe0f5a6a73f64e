// Package keepalive renews all leases of a client by one LeaseKeepAlive stream. Etcd's client has a
// user log in for each stream that it opens, and a login costs etcd more than a thousand renewals.
//
// A second stream is opened only while the first one is silent: the client's round robin brings it
// to another member. The one that answers first stays, and the other one is ended.
//
// Etcd ends a stream at the first lease that the user may not renew. Leases that were denied must
// not hold up the others: until etcd renews them again, they share a stream of their own, which is
// opened once a second at most.
//
// Lock order: the registry of the renewers before renewer.mu. Methods whose names end in Locked are
// called with it.
package keepalive

import (
	"cmp"
	"context"
	"errors"
	"maps"
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

	mu     sync.Mutex
	first  time.Duration                  // after which an answer that does not come means silence
	common *lane                          // for all leases but those that were denied the last time
	denied *lane                          // for these
	since  map[clientv3.LeaseID]time.Time // when they were denied
	users  int                            // who will ask again
	idle   *time.Timer                    // runs while there is nobody who asks or will
}

// A lane renews some of the leases, on a stream that the others do not use. Its fields are guarded
// by renewer.mu.
type lane struct {
	*renewer
	rest    time.Duration // the pause after a denial
	streams []*stream     // the newest last
	asked   []*renewal    // what was not answered yet, in the order in which it is sent
	pause   time.Duration // before the next stream is opened, if all have ended
	refused bool          // the last one
	again   *time.Timer   // runs during that pause
}

// A renewal is one request to renew a lease. It is sent on each stream of its lane, until it is
// answered on one.
type renewal struct {
	id      clientv3.LeaseID
	valid   boottime.Instant // until when the lease is valid without it
	failed  func(error)      // told why it has to be sent again
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
		k = &renewer{client: client, first: first, since: make(map[clientv3.LeaseID]time.Time)}
		k.common, k.denied = &lane{renewer: k}, &lane{renewer: k, rest: retry.PauseRefused}
		// A program that ends gives its client a context that does, and still stops its work.
		k.ctx, k.stop = context.WithCancel(context.WithoutCancel(client.Ctx()))
		renewers.Of[client] = k
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.first = min(k.first, first)
	do(k)
	k.watchIdleLocked()
	return k
}

// Keep keeps the stream of a client open until it is told that nobody will renew any more.
func Keep(client *clientv3.Client, first time.Duration) (noMore func()) {
	k := withRenewer(client, first, func(k *renewer) { k.users++ })
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.users--
		k.watchIdleLocked()
	}
}

// Renew renews a lease, which is valid until an instant that is known. It does not give up before
// ctx is done, or the user may not renew it. Failed is told of each try that came to nothing.
func Renew(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, valid boottime.Instant, first time.Duration, failed func(error)) (a Answer, err error) {
	r := &renewal{id: id, valid: valid, failed: failed, done: make(chan struct{})}
	k := withRenewer(client, first, func(k *renewer) { k.askLocked(r) })
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
	if !k.isIdleLocked() {
		return false
	}
	k.stop()
	return true
}

// isIdleLocked reports whether nobody asks, or will ask again. It is called with mu locked.
func (k *renewer) isIdleLocked() bool {
	return k.users == 0 && len(k.common.asked)+len(k.denied.asked) == 0
}

// watchIdleLocked sees to it that what nobody needs is ended, but not at once: the next turn may
// come soon.
func (k *renewer) watchIdleLocked() {
	switch {
	case !k.isIdleLocked():
		if k.idle != nil {
			k.idle.Stop()
			k.idle = nil
		}
	case k.idle == nil:
		k.idle = time.AfterFunc(perclient.IdleTimeout, func() { renewers.EndIdle(k.client) })
	}
}

func (k *renewer) askLocked(r *renewal) {
	if _, denied := k.since[r.id]; denied {
		k.denied.askLocked(r)
	} else {
		k.common.askLocked(r)
	}
}

func (l *lane) askLocked(r *renewal) {
	l.asked = append(l.asked, r)
	for _, s := range l.streams {
		l.sendLocked(s, r)
	}
	if len(l.streams) == 0 && l.again == nil {
		l.openLocked()
	}
}

// forgetLocked takes a request out of a lane, and reports whether it was there.
func (l *lane) forgetLocked(r *renewal) bool {
	i := slices.Index(l.asked, r)
	if i < 0 {
		return false
	}
	l.asked = slices.Delete(l.asked, i, i+1)
	return true
}

// mostStreams is how many there are at most: the one that is silent, and the one that is to stand
// in for it.
const mostStreams = 2

// openLocked opens a stream for all that is not answered.
func (l *lane) openLocked() {
	if len(l.streams) == mostStreams {
		l.dropLocked(l.streams[0])
	}
	s := &stream{patience: l.first, wake: make(chan struct{}, 1)}
	if len(l.streams) > 0 { // etcd may be slow: both are given that time
		s.patience = retry.Growth * l.first
	}
	s.ctx, s.end = context.WithCancel(clientv3.WithRequireLeader(l.ctx))
	l.streams = append(l.streams, s)
	if l == l.common { // where all are denied, the same one would be the first each time
		slices.SortStableFunc(l.asked, func(a, b *renewal) int { return cmp.Compare(a.valid, b.valid) })
	}
	for _, r := range l.asked {
		l.sendLocked(s, r)
	}
	go func() { l.ended(s, l.serve(s)) }()
}

func (l *lane) sendLocked(s *stream, r *renewal) {
	s.queue = append(s.queue, r)
	if s.silence == nil {
		l.listenLocked(s)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// listenLocked begins to wait for an answer. To open a stream may need a login, which takes longer.
func (l *lane) listenLocked(s *stream) {
	patience := s.patience
	if !s.open {
		patience = retry.Growth * l.first
	}
	s.silence = time.AfterFunc(patience, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if s.silence == nil || l.newestLocked() != s {
			return
		}
		l.tellLocked(context.DeadlineExceeded)
		l.openLocked()
	})
}

// listenAgainLocked waits anew for what is left to be answered.
func (l *lane) listenAgainLocked(s *stream) {
	s.heardLocked()
	if len(s.sent)+len(s.queue) > 0 {
		l.listenLocked(s)
	}
}

func (l *lane) newestLocked() *stream {
	if len(l.streams) == 0 {
		return nil
	}
	return l.streams[len(l.streams)-1]
}

// tellLocked says to all who wait why they have to.
func (l *lane) tellLocked(why error) {
	for _, r := range l.asked {
		r.failed(why)
	}
}

func (s *stream) heardLocked() {
	if s.silence != nil {
		s.silence.Stop()
		s.silence = nil
	}
}

// dropLocked ends a stream.
func (l *lane) dropLocked(s *stream) {
	s.heardLocked()
	s.end()
	l.streams = slices.DeleteFunc(l.streams, func(one *stream) bool { return one == s })
}

// withdraw takes back a request of which nobody wants the answer any more.
func (k *renewer) withdraw(r *renewal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.common.forgetLocked(r) {
		k.denied.forgetLocked(r)
	}
	k.watchIdleLocked()
}

// serve opens a stream, and sends and receives until it breaks.
func (l *lane) serve(s *stream) error {
	defer s.end()
	conn, err := pb.NewLeaseClient(l.client.ActiveConnection()).LeaseKeepAlive(s.ctx)
	if err != nil {
		return err
	}
	l.opened(s)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer s.end()
	sender.Go(func() {
		defer s.end()
		for r := l.next(s); r != nil; r = l.next(s) {
			if conn.Send(&pb.LeaseKeepAliveRequest{ID: int64(r.id)}) != nil {
				return
			}
		}
	})
	for {
		resp, err := conn.Recv()
		if err == nil {
			err = l.answered(s, resp)
		}
		if err != nil {
			return err
		}
	}
}

// opened takes note that what was sent on a stream may be answered from now on.
func (l *lane) opened(s *stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.open = true
	l.listenAgainLocked(s)
}

// next waits for the next request to be sent on a stream, and notes the time. It returns nil when
// the stream has ended.
func (l *lane) next(s *stream) *renewal {
	for {
		l.mu.Lock()
		for len(s.queue) > 0 {
			r := s.queue[0]
			s.queue = s.queue[1:]
			if slices.Contains(l.asked, r) {
				s.sent = append(s.sent, sent{r, boottime.Now()})
				l.mu.Unlock()
				return r
			}
		}
		l.mu.Unlock()
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return nil
		}
	}
}

var errNotAsked = errors.New("etcd answers what it was not asked")

// answered passes an answer on.
func (l *lane) answered(s *stream, resp *pb.LeaseKeepAliveResponse) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(s.sent) == 0 || int64(s.sent[0].id) != resp.ID {
		return errNotAsked
	}
	r, at := s.sent[0].renewal, s.sent[0].at
	s.sent = s.sent[1:]
	delete(l.since, r.id)
	if l.forgetLocked(r) {
		r.answer = Answer{resp.TTL, resp.Header.GetRaftTerm(), at}
		close(r.done)
	}
	l.pause = 0
	l.listenAgainLocked(s)
	if slices.Contains(l.streams, s) { // and not dropped for another that has answered as well
		l.settleForLocked(s)
	}
	l.watchIdleLocked()
	return nil
}

// settleForLocked drops the other stream when one has answered.
func (l *lane) settleForLocked(s *stream) {
	switch {
	case len(l.streams) == 1:
		return
	case l.newestLocked() == s:
		s.patience = l.first
	default: // it is slow and not silent: the next time it may be so for longer
		s.patience = min(2*s.patience, retry.Growth*l.first)
	}
	for _, other := range slices.Clone(l.streams) {
		if other != s {
			l.dropLocked(other)
		}
	}
}

// ended takes note that a stream has ended, and opens another one if somebody waits for that.
func (l *lane) ended(s *stream, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.streams, s) {
		return
	}
	l.dropLocked(s)
	why = rpctypes.Error(why)
	blamed := l.blameLocked(s, why)
	if !blamed {
		l.tellLocked(why)
	}
	if left := l.newestLocked(); left != nil {
		l.listenAgainLocked(left) // it may have been silent, and nobody stands in for it any more
		return
	}
	if l.ctx.Err() != nil || retry.CheckOpen(l.client) != nil {
		return
	}
	refused := retry.IsRefused(why) && !blamed
	if refused != l.refused {
		l.pause, l.refused = 0, refused
	}
	switch {
	case blamed: // etcd has answered, so it is well
		l.pause = min(l.rest, 2*l.first) // a lease that may be renewed again must be in time
	case refused && retry.IsDenied(why): // it will be again
		l.pause = retry.PauseRefused
	case refused: // for its token, or some, if a member that is behind does not know the next yet
		l.pause = min(max(4*l.pause, retry.PauseMin), retry.PauseRefused)
	default:
		l.pause = min(max(2*l.pause, retry.PauseMin), retry.PauseMax)
	}
	l.again = time.AfterFunc(l.pause, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.again = nil; len(l.streams) == 0 && len(l.asked) > 0 && l.ctx.Err() == nil {
			l.openLocked()
		}
	})
}

// memory is for how long it is remembered that a lease was denied, if nobody asks for it any more.
const memory = 10 * time.Minute

// blameLocked finds the lease that the user may not renew: etcd answers in order, and ends the
// stream instead of the answer that it refuses. All who ask for that lease are told. The others are
// asked for on the lane's next stream.
func (l *lane) blameLocked(s *stream, why error) bool {
	if !retry.IsDenied(why) || len(s.sent) == 0 {
		return false
	}
	denied := s.sent[0].id
	maps.DeleteFunc(l.since, func(_ clientv3.LeaseID, at time.Time) bool { return time.Since(at) > memory })
	l.since[denied] = time.Now()
	l.asked = slices.DeleteFunc(l.asked, func(r *renewal) bool {
		if r.id != denied {
			return false
		}
		r.refused = why
		close(r.done)
		return true
	})
	l.watchIdleLocked()
	return true
}
