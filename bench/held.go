package main

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// heldTTL is that of many locks, which are renewed each heldRefresh.
const (
	heldTTL     = 4 * time.Second
	heldRefresh = heldTTL / 2
)

// held takes many locks of one session and returns what each of them costs its process, and what
// renewing all costs.
func held(ctx context.Context, e etcd, lib library, locks, refreshes int) (_ figures, err error) {
	var sent messages
	client, err := e.client(grpc.WithStatsHandler(&sent))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	s, err := lib.open(ctx, client, heldTTL)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closing)
		defer cancel()
		err = errors.Join(err, s.close(ctx))
	}()
	contenders := make([]contender, locks)
	heap, goroutines := heapInUse(), runtime.NumGoroutine()
	if err := inParallel(locks, func(i int) (err error) {
		if contenders[i], err = s.contender(ctx, newKey()); err != nil {
			return err
		}
		return contenders[i].lock(ctx)
	}); err != nil {
		return nil, err
	}
	f := figures{
		"heap":       {float64(heapInUse()-heap) / 1024 / float64(locks)},
		"goroutines": {float64(runtime.NumGoroutine() - goroutines)},
	}
	if !sleep(ctx, heldRefresh) { // until all are looked after
		return nil, context.Cause(ctx)
	}
	before := sent.Load()
	if !sleep(ctx, time.Duration(refreshes)*heldRefresh) {
		return nil, context.Cause(ctx)
	}
	f["messages"] = []float64{float64(sent.Load()-before) / float64(refreshes)}
	runtime.KeepAlive(contenders)
	return f, nil
}

// heapInUse returns the bytes of all that is still needed.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what the first one finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// inParallel calls do with each number below n, some at a time, and returns the first error.
func inParallel(n int, do func(int) error) error {
	const workers = 32
	var (
		next   atomic.Int64
		once   sync.Once
		failed error
		all    sync.WaitGroup
	)
	for range workers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	all.Wait()
	return failed
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// messages counts those that a client sends, in streams and by themselves.
type messages struct{ atomic.Int64 }

func (*messages) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*messages) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*messages) HandleConn(context.Context, stats.ConnStats)                       {}

func (m *messages) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); ok {
		m.Add(1)
	}
}
