// Package onestream watches keys of etcd by one stream of events. If that breaks, etcd's client
// would open another one without a word, and etcd may have come back with another history.
package onestream

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// ErrBroken is the error of a stream that has ended.
var ErrBroken = errors.New("the stream of events has ended")

// A Stream is one stream of events.
type Stream struct {
	watcher clientv3.Watcher
	opened  chan clientv3.WatchChan
	ask     chan struct{}
	all     sync.WaitGroup
	cancel  context.CancelFunc
}

// Open has a stream opened, for as long as etcd has a leader and until Close. It does not wait for
// that.
func Open(ctx context.Context, client *clientv3.Client, key string, opts ...clientv3.OpOption) *Stream {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	s := &Stream{
		watcher: clientv3.NewWatchFromWatchClient(&once{WatchClient: pb.NewWatchClient(client.ActiveConnection())}, client),
		opened:  make(chan clientv3.WatchChan, 1),
		ask:     make(chan struct{}, 1),
		cancel:  cancel,
	}
	s.all.Go(func() { s.opened <- s.watcher.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...) })
	s.all.Go(func() { s.askForSigns(ctx) })
	return s
}

// Close ends the stream, and waits until nothing of it is left.
func (s *Stream) Close() {
	s.watcher.Close()
	s.cancel()
	s.all.Wait()
}

// Opened receives the stream's channel once, when etcd has answered.
func (s *Stream) Opened() <-chan clientv3.WatchChan { return s.opened }

// AskForSign has the stream asked for a sign of life, which comes as progress. It does not wait.
// What fails is silent, and is noticed by that.
func (s *Stream) AskForSign() {
	select {
	case s.ask <- struct{}{}:
	default:
	}
}

func (s *Stream) askForSigns(ctx context.Context) {
	for {
		select {
		case <-s.ask:
			s.watcher.RequestProgress(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// once opens one stream.
type once struct {
	pb.WatchClient
	opened bool
}

func (o *once) Watch(ctx context.Context, opts ...grpc.CallOption) (pb.Watch_WatchClient, error) {
	if o.opened {
		return nil, ErrBroken
	}
	stream, err := o.WatchClient.Watch(ctx, opts...)
	o.opened = err == nil
	return stream, err
}
