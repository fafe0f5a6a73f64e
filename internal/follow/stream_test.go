package follow

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

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
// that, nor where one question is not answered.
func TestQuiet(t *testing.T) {
	t.Parallel()
	for name, unanswered := range map[string]int{"all is answered": 0, "but for one question": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := etcdtest.Start(t)
			gate, watching := s.Gated(t)
			told, slowest := toldInQuiet(t, watching, s.Client(t), func() { gate.Intercept(holding(unanswered)) })
			if slowest < askEvery && !slices.Equal(told, []Kind{Began}) {
				t.Errorf("told %v; the slowest answer took %v", told, slowest)
			}
		})
	}
}

// toldInQuiet returns what a Watch tells while nobody writes, and the slowest answer of an etcd
// that may have to wait for a processor. It calls begun when the Watch has begun.
func toldInQuiet(t *testing.T, watching, client *clientv3.Client, begun func()) (told []Kind, slowest time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(etcdtest.Context(t))
	defer cancel()
	measured := make(chan struct{})
	go func() {
		defer close(measured)
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
	err := Run(ctx, Watch{Client: watching, From: "/", End: "0", IsAsked: func(string) bool { return true }}, func(c Change) bool {
		if told = append(told, c.Kind); c.Kind == Began {
			begun()
		}
		return true
	})
	<-measured
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	return told, slowest
}

// holding returns a hook that holds so many reads, for good.
func holding(n int) etcdtest.Hook {
	return func(method string, _ proto.Message) etcdtest.Verdict {
		if n == 0 || !strings.HasSuffix(method, "/Range") {
			return etcdtest.Pass
		}
		n--
		return etcdtest.HoldRequest
	}
}

// TestUnansweredProof: a proof does not wait for an answer for as long as for that of a busy etcd,
// but asks again.
func TestUnansweredProof(t *testing.T) {
	t.Parallel()
	gate, client := etcdtest.Start(t).Gated(t)
	var told []Kind
	f := surveyor(client, func(c Change) bool {
		told = append(told, c.Kind)
		return true
	})
	f.revision = 1
	gate.Intercept(holding(1))
	begun := time.Now()
	if err := f.prove(etcdtest.Context(t)); err != nil || !slices.Equal(told, []Kind{Away}) {
		t.Errorf("%v, told %v", err, told)
	}
	if took := time.Since(begun); took > mostSilence/2 {
		t.Errorf("it took %v", took)
	}
}
