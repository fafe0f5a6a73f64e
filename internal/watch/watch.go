// Package watch has the one watch stream that all locks of a client share.
//
// What the stream tells is a hint, and what it does not tell may have happened all the same: a
// member that fell silent leaves its streams open and empty.
//
// Lock order: the registry of the streams before stream.mu. An owner is called without either.
// Methods whose names end in Locked are called with stream.mu.
package watch

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/etcdlock/etcdlock/internal/perclient"
	"github.com/etcdlock/etcdlock/internal/retry"
)

// A stream is the watch stream of a client.
//
// The watches that a waiter depends on begin now and not at a past revision: etcd serves those from
// a loop that runs every 100 ms, and a lock that is handed over would wait for it.
type stream struct {
	client *clientv3.Client
	ctx    context.Context
	stop   context.CancelFunc

	mu            sync.Mutex
	watches       map[int64]*Watch
	last          int64              // the newest watch's number
	requests      []*pb.WatchRequest // to be sent
	wake          chan struct{}      // there are some
	created       []int64            // watches that were asked for and not confirmed, in that order
	createTimeout time.Duration      // after which an answer that does not come means silence
	silence       *time.Timer        // runs while an answer is due
	restart       context.CancelFunc // ends the present connection
	idle          *time.Timer        // runs while there are no watches

	progress   int64         // all that happened up to this revision has been told
	progressed chan struct{} // closed when progress is
}

// A Watch is one key that is watched, or a range of keys. All but since is set before it begins.
type Watch struct {
	key   string
	end   string // of the range; "" if it is one key
	owner Owner
	from  int64 // the first revision that is to be told of; 0: from now
	id    int64
	// Nothing that comes after this revision is missed; 0 as long as etcd has not confirmed it;
	// guarded by stream.mu.
	since int64
}

// From returns the first revision that is to be told of, 0: from now.
func (w *Watch) From() int64 { return w.from }

// Owner returns who is told of the key.
func (w *Watch) Owner() Owner { return w.owner }

// An Owner is told what happens to the keys that it watches, in order, by a goroutine that it must
// not block.
type Owner interface {
	// OnCreated says that nothing that happens after the revision since will be missed. Again says
	// that something may have been missed before it.
	OnCreated(w *Watch, since int64, again bool)
	// OnEvents passes on what happened to the key.
	OnEvents(w *Watch, events []*mvccpb.Event, h *pb.ResponseHeader)
}

// streams are those of this process.
var streams = perclient.New[*stream]()

// EndIdle ends a client's stream if it has no watches.
func EndIdle(client *clientv3.Client) { streams.EndIdle(client) }

// streamOf returns a client's stream, nil if it has none.
func streamOf(client *clientv3.Client) *stream {
	streams.Lock()
	defer streams.Unlock()
	return streams.Of[client]
}

// All returns the watches of a client, and of how many etcd has confirmed that it serves them. It
// is for tests.
func All(client *clientv3.Client) (all []*Watch, created int) {
	s := streamOf(client)
	if s == nil {
		return nil, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		all = append(all, w)
		if w.since > 0 {
			created++
		}
	}
	return all, created
}

// Key begins to watch a key, or with an end all keys from it up to that, from a revision on, or
// from now if that is 0. It does not block: the owner is told when etcd has created the watch. If
// that takes longer than createTimeout, the stream is opened anew.
func Key(client *clientv3.Client, key, end string, from int64, owner Owner, createTimeout time.Duration) *Watch {
	streams.Lock()
	defer streams.Unlock()
	s := streams.Of[client]
	if s == nil {
		s = &stream{
			client:        client,
			watches:       make(map[int64]*Watch),
			wake:          make(chan struct{}, 1),
			createTimeout: createTimeout,
			progressed:    make(chan struct{}),
		}
		s.ctx, s.stop = context.WithCancel(client.Ctx())
		streams.Of[client] = s
		go s.run()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	s.createTimeout = min(s.createTimeout, createTimeout)
	s.last++
	w := &Watch{key: key, end: end, from: from, owner: owner, id: s.last}
	s.watches[w.id] = w
	s.createLocked(w)
	return w
}

// Cancel ends watches, some of which may be nil. Their owner may be told one thing more.
func Cancel(client *clientv3.Client, watches ...*Watch) {
	s := streamOf(client)
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range watches {
		if w == nil || s.watches[w.id] != w {
			continue
		}
		delete(s.watches, w.id)
		s.requestLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: w.id}}})
	}
	if len(s.watches) == 0 && s.idle == nil {
		s.idle = time.AfterFunc(perclient.IdleTimeout, func() { streams.EndIdle(client) })
	}
}

// EndIfIdle ends the stream if it has no watches.
func (s *stream) EndIfIdle() (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watches) > 0 {
		return false
	}
	s.stop()
	return true
}

// WaitProgress waits until the stream of a client, if it has one, has told all that happened up to
// a revision, and reports whether it has. If that takes longer than its createTimeout, the stream
// is opened anew.
func WaitProgress(ctx context.Context, client *clientv3.Client, revision int64) (told bool) {
	s := streamOf(client)
	if s == nil {
		return true
	}
	s.mu.Lock()
	limit := time.NewTimer(s.createTimeout)
	s.mu.Unlock()
	defer limit.Stop()
	for {
		s.mu.Lock()
		done, progressed := s.progress >= revision, s.progressed
		if !done {
			s.requestLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		}
		s.mu.Unlock()
		if done {
			return true
		}
		// Etcd does not answer while a watch is behind: it is asked again.
		again := time.NewTimer(retry.PauseMax)
		select {
		case <-progressed:
		case <-again.C:
		case <-limit.C:
			s.mu.Lock()
			s.reopenLocked()
			s.mu.Unlock()
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// createLocked asks for a watch.
func (s *stream) createLocked(w *Watch) {
	s.created = append(s.created, w.id)
	s.requestLocked(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(w.key), RangeEnd: []byte(w.end), StartRevision: w.from, WatchId: w.id,
	}}})
	if s.silence == nil {
		s.silence = time.AfterFunc(s.createTimeout, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.reopenLocked()
		})
	}
}

func (s *stream) requestLocked(r *pb.WatchRequest) {
	s.requests = append(s.requests, r)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// answeredLocked says that no watch is waited for.
func (s *stream) answeredLocked() {
	s.created = nil
	if s.silence != nil {
		s.silence.Stop()
		s.silence = nil
	}
}

func (s *stream) reopenLocked() {
	if s.restart != nil {
		s.restart()
	}
}

// run keeps the stream open until it is ended, or the client is closed.
func (s *stream) run() {
	defer func() {
		streams.Lock()
		defer streams.Unlock()
		if streams.Of[s.client] == s {
			delete(streams.Of, s.client)
		}
	}()
	for pause := retry.PauseMin; ; {
		if s.connect() {
			pause = retry.PauseMin
		}
		if !retry.Sleep(s.ctx, pause) {
			return
		}
		pause = min(2*pause, retry.PauseMax)
	}
}

// connect opens the stream, asks for all watches, and tells their owners until it breaks. It
// reports whether etcd has said anything.
func (s *stream) connect() (heard bool) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	conn, err := pb.NewWatchClient(s.client.ActiveConnection()).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return false
	}
	s.begin(cancel)
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() {
		defer cancel()
		s.send(ctx, conn)
	})
	for {
		resp, err := conn.Recv()
		if err != nil || s.receive(resp) != nil {
			return heard
		}
		heard = true
	}
}

// begin asks for all watches anew.
func (s *stream) begin(restart context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restart = restart
	s.requests, s.progress = nil, 0
	s.answeredLocked()
	for _, w := range s.watches {
		s.createLocked(w)
	}
}

func (s *stream) send(ctx context.Context, conn pb.Watch_WatchClient) {
	for {
		s.mu.Lock()
		requests := s.requests
		s.requests = nil
		s.mu.Unlock()
		for _, r := range requests {
			if conn.Send(r) != nil {
				return
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

var errWatchRefused = errors.New("etcd refuses a watch")

// receive passes an answer on. It fails if the stream is of no use any more.
func (s *stream) receive(resp *pb.WatchResponse) error {
	w, again, err := s.sort(resp)
	switch {
	case w == nil || err != nil:
		return err
	case resp.Created:
		w.owner.OnCreated(w, resp.Header.Revision, again)
	default:
		w.owner.OnEvents(w, resp.Events, resp.Header)
	}
	return nil
}

// sort finds out what an answer is about: a watch that goes on, or nothing that anybody is to be
// told.
func (s *stream) sort(resp *pb.WatchResponse) (w *Watch, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silence != nil {
		s.silence.Reset(s.createTimeout)
	}
	switch {
	case resp.Created:
		if len(s.created) == 0 {
			return nil, false, errWatchRefused
		}
		w = s.watches[s.created[0]]
		if s.created = s.created[1:]; len(s.created) == 0 {
			s.answeredLocked()
		}
		if w == nil || resp.Canceled && resp.CancelReason == rpctypes.ErrGRPCPermissionDenied.Error() {
			return nil, false, nil // it is done without
		}
		if resp.Canceled {
			// For example because a token of etcd's users has run out: the next stream has a new
			// one.
			return nil, false, errWatchRefused
		}
		again, w.since = w.since != 0, resp.Header.Revision
	case resp.CompactRevision != 0:
		if w := s.watches[resp.WatchId]; w != nil && w.from == 0 {
			// It was left behind; from now on is good enough for it.
			return nil, false, errWatchRefused
		}
		delete(s.watches, resp.WatchId) // what it was to tell of is forgotten
	case resp.Canceled:
		if s.watches[resp.WatchId] != nil {
			return nil, false, errWatchRefused
		}
	case resp.WatchId == clientv3.InvalidWatchID:
		s.progress = max(s.progress, resp.Header.Revision)
		close(s.progressed)
		s.progressed = make(chan struct{})
	default:
		w = s.watches[resp.WatchId]
	}
	return w, again, nil
}
