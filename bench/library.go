package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"

	"github.com/etcdlock/etcdlock"
)

// A contender gets the lock and gives it back, with a lease at hand.
type contender struct {
	lock, unlock func(context.Context) error
	close        func()
}

func (b *bench) ours(key string) (contender, error) {
	client, err := b.client()
	if err != nil {
		return contender{}, err
	}
	l, err := etcdlock.New(client, key, "bench", time.Minute)
	if err != nil {
		return contender{}, err
	}
	return contender{
		lock:   func(ctx context.Context) error { _, err := l.Lock(ctx); return err },
		unlock: l.Unlock,
		close:  func() { l.Close(context.Background()); client.Close() },
	}, l.Prepare(context.Background())
}

func (b *bench) mutex(key string) (contender, error) {
	client, err := b.client()
	if err != nil {
		return contender{}, err
	}
	s, err := concurrency.NewSession(client)
	if err != nil {
		return contender{}, err
	}
	m := concurrency.NewMutex(s, key)
	return contender{m.Lock, m.Unlock, func() { s.Close(); client.Close() }}, nil
}

func (b *bench) client() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{b.endpoint}, Logger: zap.NewNop()})
}

// uncontended returns locks and unlocks per second.
func (b *bench) uncontended(make func(string) (contender, error)) (float64, error) {
	const n = 1000
	c, err := make(b.key())
	if err != nil {
		return 0, err
	}
	defer c.close()
	ctx := context.Background()
	start := time.Now()
	for range n {
		if err := c.lock(ctx); err != nil {
			return 0, err
		}
		if err := c.unlock(ctx); err != nil {
			return 0, err
		}
	}
	return n / time.Since(start).Seconds(), nil
}

// handOvers lets contenders take turns and returns the times from the beginning of an unlock to the next lock, in ms, and
// the turns per second.
func (b *bench) handOvers(make func(string) (contender, error), contenders, turns int, hold time.Duration) ([]float64, float64, error) {
	var (
		mu       sync.Mutex
		released time.Time
		times    []float64
		failed   error
		wg       sync.WaitGroup
	)
	key, ctx := b.key(), context.Background()
	begin := time.Now()
	for range contenders {
		c, err := make(key)
		if err != nil {
			return nil, 0, err
		}
		defer c.close()
		wg.Go(func() {
			for range turns {
				err := c.lock(ctx)
				got := time.Now()
				if err == nil {
					mu.Lock()
					if !released.IsZero() {
						times = append(times, milliseconds(got.Sub(released)))
					}
					mu.Unlock()
					time.Sleep(hold)
					mu.Lock()
					released = time.Now()
					mu.Unlock()
					err = c.unlock(ctx)
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	return times, float64(contenders*turns) / time.Since(begin).Seconds(), failed
}

// key returns one that was not used before.
func (b *bench) key() string {
	b.keys++
	return fmt.Sprintf("/bench/%d", b.keys)
}
