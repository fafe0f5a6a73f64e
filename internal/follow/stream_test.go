package follow

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/etcdtest"
)

// TestSilentStream: of a silent stream it is told once that etcd is away, and there is another one,
// after a longer silence each time, until one is not silent any more.
func TestSilentStream(t *testing.T) {
	var told []Kind
	f := &follower{patience: silence, proof: proof{at: time.Now()}, yield: func(c Change) bool {
		told = append(told, c.Kind)
		return true
	}}
	after := func(silent time.Duration) error {
		f.heard = time.Now().Add(-silent)
		return f.tellSilence()
	}
	for _, tt := range []struct {
		silent time.Duration
		err    error
		told   int
	}{
		{silence / 2, nil, 0},
		{silence, errSilent, 1},
		{silence, nil, 1},
		{2 * silence, errSilent, 1},
		{3 * silence, nil, 1},
		{4 * silence, errSilent, 1},
		{8 * silence, errSilent, 1},
		{16 * silence, errSilent, 1},
		{16 * silence, errSilent, 1},
	} {
		if err := after(tt.silent); err != tt.err || len(told) != tt.told {
			t.Errorf("after %v: %v, and told %v", tt.silent, err, told)
		}
	}
	created := clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: 7}, Created: true}
	if err := f.hear(context.Background(), created); err != nil || f.patience != mostSilence || f.away {
		t.Errorf("a stream has begun: %v, patience %v, away %v", err, f.patience, f.away)
	}
	progress := clientv3.WatchResponse{Header: &pb.ResponseHeader{Revision: 7}}
	if err := f.hear(context.Background(), progress); err != nil || f.patience != silence || f.revision != 7 {
		t.Errorf("a sign of life: %v, patience %v, revision %d", err, f.patience, f.revision)
	}
}

// TestQuiet: etcd gives no sign to a stream that begins with a revision to come. It is not away for
// that.
func TestQuiet(t *testing.T) {
	t.Parallel()
	client := etcdtest.Start(t).Client(t)
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	var slowest time.Duration // answer of an etcd that may have to wait for a processor
	go func() {
		defer cancel()
		for begun, asked := time.Now(), time.Now(); asked.Sub(begun) < 2*silence; asked = time.Now() {
			if _, err := client.Get(ctx, "/"); err != nil {
				t.Error(err)
				return
			}
			slowest = max(slowest, time.Since(asked))
			time.Sleep(silence / 100)
		}
	}()
	var told []Kind
	err := Run(ctx, Watch{Client: client, From: "/", End: "0", IsAsked: func(string) bool { return true }}, func(c Change) bool {
		told = append(told, c.Kind)
		return true
	})
	<-ctx.Done()
	if !errors.Is(err, context.Canceled) || slowest < askEvery && !slices.Equal(told, []Kind{Began}) {
		t.Errorf("%v, told %v; the slowest answer took %v", err, told, slowest)
	}
}
