package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// growth says how lines of waiters are measured.
type growth struct {
	sizes     []int // waiters
	rushes    int   // how often some more join, behind all waiters
	arrivals  int   // how many those are
	handOvers int
	hold      time.Duration
}

// sessions is how many clients, with a session each, the waiters share.
const sessions = 10

// patience is how long a line may take for everything.
const patience = 5 * time.Minute

// A line is a number of contenders that wait behind a holder.
type line struct {
	crowd
	growth

	key     string
	ctx     context.Context // ends with the line
	cancel  context.CancelCauseFunc
	places  *places
	waiting sync.WaitGroup
	stile   *turnstile
	over    atomic.Bool // what fails from now on has been told to
}

// measure makes a line on a server of its own, and measures in it how long it takes to join it, how
// long to hand over, and what a hand-over costs the server, with the return of who has had a turn
// to the end of the line.
func (g growth) measure(ctx context.Context, programs string, lib library, waiters int) (_ figures, err error) {
	s, err := startServer(ctx, programs)
	if err != nil {
		return nil, err
	}
	defer s.close()
	l := &line{growth: g, key: newKey(), stile: newTurnstile(g.handOvers)}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the line stands still"))
	defer cancel()
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	defer func() { err = errors.Join(err, l.leave(lib)) }()
	holder, err := l.fill(s.etcd, lib, waiters)
	if err != nil {
		return nil, err
	}
	if err := s.settle(l.ctx); err != nil {
		return nil, err
	}
	enqueue, err := l.arrive(lib)
	if err != nil {
		return nil, err
	}
	l.places.close()
	if err := s.settle(l.ctx); err != nil {
		return nil, err
	}
	used, err := l.goOn(s, holder)
	if err != nil {
		return nil, err
	}
	f := spread(l.stile.times())
	f["enqueue"], f["cpu"] = []float64{median(enqueue)}, []float64{used}
	return f, nil
}

// fill makes a holder and waiters behind it. Of Mutex's only as many are real as get a turn, with
// some more that return; the others are keys where theirs would be. They cost etcd less than
// waiters do, and a line of 10,000 Mutexes takes many minutes to form, as each sorts the whole line
// twice.
func (l *line) fill(e etcd, lib library, waiters int) (holder contender, err error) {
	for range sessions {
		if _, err := l.session(l.ctx, e, lib); err != nil {
			return holder, err
		}
	}
	if s, ok := l.sessions[0].(crowded); ok {
		if err := s.crowd(l.ctx, l.key); err != nil {
			return holder, err
		}
	}
	if l.places, err = watchPlaces(l.ctx, e, l.key); err != nil {
		return holder, err
	}
	if holder, err = l.sessions[0].contender(l.ctx, l.key); err != nil {
		return holder, err
	}
	if err := holder.lock(l.ctx); err != nil {
		return holder, err
	}
	if err := l.places.await(l.ctx, 1); err != nil {
		return holder, err
	}
	realOnes := waiters
	if lib.name == mutex.name {
		realOnes = min(waiters, l.handOvers+l.handOvers/5)
	}
	if err := l.enqueue(realOnes); err != nil {
		return holder, err
	}
	return holder, l.pretend(e, waiters-realOnes)
}

// enqueue lets contenders join the line, in parallel.
func (l *line) enqueue(n int) error {
	const atOnce = 50
	contenders := make([]contender, n)
	if err := inParallel(sessions, func(i int) (err error) {
		for j := i; j < n && err == nil; j += sessions {
			contenders[j], err = l.sessions[i].contender(l.ctx, l.key)
		}
		return err
	}); err != nil {
		return err
	}
	before := l.places.count()
	for i, c := range contenders {
		l.waiting.Go(func() { l.takeTurns(c) })
		if joined := i + 1; joined%atOnce == 0 || joined == n {
			if err := l.places.await(l.ctx, before+joined); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeTurns goes to the end of the line after each turn.
func (l *line) takeTurns(c contender) {
	for {
		if err := l.stile.cycle(l.ctx, c, l.hold); err != nil {
			if !l.over.Load() {
				l.cancel(err)
			}
			return
		}
	}
}

// pretend puts n keys into the line, named as Mutex names its own.
func (l *line) pretend(e etcd, n int) error {
	const atOnce = 100
	client, err := e.client()
	if err != nil {
		return err
	}
	l.clients = append(l.clients, client)
	for n > 0 {
		var puts []clientv3.Op
		for ; n > 0 && len(puts) < atOnce; n-- {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("%s/%016x", l.key, n), ""))
		}
		if _, err := client.Txn(l.ctx).Then(puts...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

// arrive lets contenders join at once, and leave the line again, some times. It returns how long it
// took until all had their places, for each of them, in ms. Their session ends with that: a Mutex
// that is told to leave before it has heard of its place leaves it behind.
func (l *line) arrive(lib library) (times []float64, err error) {
	s, err := lib.open(l.ctx, l.clients[0], ttl)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), closing)
		defer cancel()
		err = errors.Join(err, s.close(ctx))
	}()
	for range l.rushes {
		took, err := l.rush(s)
		if err != nil {
			return nil, err
		}
		times = append(times, milliseconds(took)/float64(l.arrivals))
	}
	return times, nil
}

// rush lets contenders of one session join at once, and leave again, and returns how long it took
// until all had places.
func (l *line) rush(s session) (took time.Duration, err error) {
	contenders := make([]contender, l.arrivals)
	for i := range contenders {
		if contenders[i], err = s.contender(l.ctx, l.key); err != nil {
			return 0, err
		}
	}
	ctx, leave := context.WithCancel(l.ctx)
	var gone sync.WaitGroup
	defer gone.Wait()
	defer leave()
	before := l.places.count()
	start := time.Now()
	for _, c := range contenders {
		gone.Go(func() { c.lock(ctx) }) // until it leaves
	}
	err = l.places.await(l.ctx, before+l.arrivals)
	return time.Since(start), err
}

// goOn lets the line go on until there were enough hand-overs, and returns what each has cost the
// server, in ms.
func (l *line) goOn(s *server, holder contender) (float64, error) {
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	l.stile.leaves()
	if err := holder.unlock(l.ctx); err != nil {
		return 0, err
	}
	select {
	case <-l.stile.full:
	case <-l.ctx.Done():
		return 0, context.Cause(l.ctx)
	}
	after, err := s.cpu()
	return milliseconds(after-before) / float64(l.handOvers), err
}

// leave ends the line. Mutexes that leave would sort it once more, each: they lose their
// connections instead.
func (l *line) leave(lib library) (err error) {
	l.over.Store(true)
	if l.places != nil {
		l.places.close()
	}
	if lib.name != mutex.name {
		err = l.close()
	}
	for _, client := range l.clients {
		client.Close()
	}
	l.cancel(nil)
	l.waiting.Wait()
	return err
}

// places counts those that were taken in a line.
type places struct {
	client *clientv3.Client
	stop   context.CancelFunc

	mu      sync.Mutex
	taken   int
	changed chan struct{} // closed when taken changes
}

func watchPlaces(ctx context.Context, e etcd, key string) (*places, error) {
	client, err := e.client()
	if err != nil {
		return nil, err
	}
	p := &places{client: client, changed: make(chan struct{})}
	ctx, p.stop = context.WithCancel(ctx)
	events := client.Watch(ctx, key+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFilterDelete())
	if err := created(events); err != nil {
		p.close()
		return nil, err
	}
	go func() {
		for seen := range events {
			p.add(seen.Events)
		}
	}()
	return p, nil
}

func (p *places) add(events []*clientv3.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		if e.IsCreate() && !bytes.Contains(e.Kv.Key, []byte("#")) { // of a slot
			p.taken++
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *places) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// await waits until so many places were taken.
func (p *places) await(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		taken, changed := p.taken, p.changed
		p.mu.Unlock()
		if taken >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (p *places) close() {
	p.stop()
	p.client.Close()
}
