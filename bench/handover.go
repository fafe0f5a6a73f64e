package main

import (
	"context"
	"errors"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A turnstile records who goes through: the time of each hand-over, from the call of unlock to the
// return of the next lock.
type turnstile struct {
	mu        sync.Mutex
	left      time.Time // when unlock was called last
	first     time.Time // when the first hand-over was over
	last      time.Time
	handOvers []time.Duration
	enough    int           // 0: no end
	full      chan struct{} // closed when there were enough
}

func newTurnstile(enough int) *turnstile {
	return &turnstile{enough: enough, full: make(chan struct{})}
}

func (t *turnstile) entered() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left.IsZero() {
		return
	}
	if t.first.IsZero() {
		t.first = now
	}
	t.last = now
	t.handOvers = append(t.handOvers, now.Sub(t.left))
	if len(t.handOvers) == t.enough {
		close(t.full)
	}
}

func (t *turnstile) leaves() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = time.Now()
}

// times returns the hand-over times in ms, and as many as there should be at most.
func (t *turnstile) times() []float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	times := make([]float64, 0, len(t.handOvers))
	for _, d := range t.handOvers {
		times = append(times, milliseconds(d))
	}
	if t.enough > 0 && len(times) > t.enough {
		times = times[:t.enough]
	}
	return times
}

// perSecond returns the rate of the hand-overs.
func (t *turnstile) perSecond() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(len(t.handOvers)-1) / t.last.Sub(t.first).Seconds()
}

// cycle is one turn of a contender.
func (t *turnstile) cycle(ctx context.Context, c contender, hold time.Duration) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	t.entered()
	time.Sleep(hold)
	t.leaves()
	return c.unlock(ctx)
}

// A crowd is a number of contenders for one key, each with a client of its own.
type crowd struct {
	contenders []contender
	clients    []*clientv3.Client
	sessions   []session
}

func gather(ctx context.Context, e etcd, lib library, size int) (*crowd, error) {
	c := &crowd{}
	key := newKey()
	for range size {
		s, err := c.session(ctx, e, lib)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		one, err := s.contender(ctx, key)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.contenders = append(c.contenders, one)
	}
	return c, nil
}

// session opens one on a client of its own, both of which are closed with the crowd.
func (c *crowd) session(ctx context.Context, e etcd, lib library) (session, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	c.clients = append(c.clients, client)
	s, err := lib.open(ctx, client, ttl)
	if err != nil {
		return nil, err
	}
	c.sessions = append(c.sessions, s)
	return s, nil
}

// closing bounds how long leaving in order may take.
const closing = 30 * time.Second

func (c *crowd) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	err = inParallel(len(c.sessions), func(i int) error { return c.sessions[i].close(ctx) })
	for _, client := range c.clients {
		client.Close()
	}
	return err
}

// handOvers lets contenders take turns.
func handOvers(ctx context.Context, e etcd, lib library, contenders, turns int, hold time.Duration) (_ figures, err error) {
	c, err := gather(ctx, e, lib, contenders)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := newTurnstile(0)
	var all sync.WaitGroup
	for _, one := range c.contenders {
		all.Go(func() {
			for range turns {
				if err := t.cycle(ctx, one, hold); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f := spread(t.times())
	f["rate"] = []float64{t.perSecond()}
	return f, nil
}

// uncontended returns the locks with their unlocks per second of a contender that is alone.
func uncontended(ctx context.Context, e etcd, lib library, n int) (_ figures, err error) {
	c, err := gather(ctx, e, lib, 1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	one := c.contenders[0]
	start := time.Now()
	for range n {
		if err := one.lock(ctx); err != nil {
			return nil, err
		}
		if err := one.unlock(ctx); err != nil {
			return nil, err
		}
	}
	return figures{"rate": {float64(n) / time.Since(start).Seconds()}}, nil
}

// floor is what no lock on etcd can be faster than: a key is deleted, and another client's watch
// sees it. The key is there for as long as a lock is held that is compared with it: after a pause
// everything takes longer.
func floor(ctx context.Context, e etcd, n int, hold time.Duration) (figures, error) {
	writer, err := e.client()
	if err != nil {
		return nil, err
	}
	defer writer.Close()
	watcher, err := e.client()
	if err != nil {
		return nil, err
	}
	defer watcher.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	key := newKey()
	events := watcher.Watch(ctx, key, clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	if err := created(events); err != nil {
		return nil, err
	}
	var times []float64
	for range n {
		if _, err := writer.Put(ctx, key, ""); err != nil {
			return nil, err
		}
		if !sleep(ctx, hold) {
			return nil, context.Cause(ctx)
		}
		start := time.Now()
		deleted := make(chan error, 1)
		go func() { _, err := writer.Delete(ctx, key); deleted <- err }()
		seen, ok := <-events
		times = append(times, milliseconds(time.Since(start)))
		if err := errors.Join(<-deleted, seen.Err()); err != nil || !ok {
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
	return spread(times), nil
}

// created waits until a watch is known to etcd.
func created(events clientv3.WatchChan) error {
	if first, ok := <-events; !ok || !first.Created {
		return errors.Join(errors.New("the watch was not made"), first.Err())
	}
	return nil
}
