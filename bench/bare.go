package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Lines without locks, which have nothing but the requests that a hand-over cannot do without: who
// goes deletes a key, which the watch of the next one shows. That one has its turn at once, or when
// it has written a key of its own as well. Nobody has a lease, and all know the order of the line,
// as they are in one process.
var (
	bareOne = library{"one commit", openBare(1)}
	bareTwo = library{"two commits, one after the other", openBare(2)}
)

// A bareSession makes contenders of such lines.
type bareSession struct {
	client  *clientv3.Client
	commits int // of a hand-over
}

func openBare(commits int) func(context.Context, *clientv3.Client, time.Duration) (session, error) {
	return func(_ context.Context, client *clientv3.Client, _ time.Duration) (session, error) {
		return bareSession{client, commits}, nil
	}
}

func (s bareSession) close(context.Context) error { return nil }

func (s bareSession) contender(_ context.Context, key string) (contender, error) {
	line, _ := bareLines.LoadOrStore(key, new(bareLine))
	c := &bareContender{session: s, line: line.(*bareLine), slot: key + "/#"}
	return contender{c.lock, c.unlock}, nil
}

// bareLines has each line by its key.
var bareLines sync.Map

// A bareLine is who stands in a line, and first who has its turn.
type bareLine struct {
	mu     sync.Mutex
	places []*barePlace
	taken  int // ever
}

type barePlace struct {
	key     string
	written chan struct{} // closed when it is
	at      int64         // the revision of that
}

// join adds a place at the end.
func (l *bareLine) join(slot string) *barePlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken++
	p := &barePlace{key: fmt.Sprintf("%s%d", slot[:len(slot)-1], l.taken), written: make(chan struct{})}
	l.places = append(l.places, p)
	return p
}

func (l *bareLine) leave(p *barePlace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.places = slices.DeleteFunc(l.places, func(one *barePlace) bool { return one == p })
}

// before returns who stands before a place, nil if nobody does.
func (l *bareLine) before(p *barePlace) *barePlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.places, p); i > 0 {
		return l.places[i-1]
	}
	return nil
}

// A bareContender takes its turns.
type bareContender struct {
	session bareSession
	line    *bareLine
	slot    string // what two commits write
	place   *barePlace
}

func (c *bareContender) lock(ctx context.Context) error {
	c.place = c.line.join(c.slot)
	err := c.wait(ctx)
	if err == nil && c.session.commits > 1 {
		_, err = c.session.client.Put(ctx, c.slot, "")
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
		defer cancel()
		err = errors.Join(err, c.unlock(ctx))
	}
	return err
}

// wait writes the place, and waits until nobody stands before it.
func (c *bareContender) wait(ctx context.Context) error {
	resp, err := c.session.client.Put(ctx, c.place.key, "")
	if err == nil {
		c.place.at = resp.Header.Revision
	}
	close(c.place.written)
	for err == nil {
		before := c.line.before(c.place)
		if before == nil {
			break
		}
		<-before.written
		err = c.gone(ctx, before)
	}
	return err
}

// gone waits until a place is not there any more.
func (c *bareContender) gone(ctx context.Context, p *barePlace) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen, ok := <-c.session.client.Watch(ctx, p.key, clientv3.WithRev(p.at+1), clientv3.WithFilterPut())
	if !ok {
		return context.Cause(ctx)
	}
	return seen.Err()
}

func (c *bareContender) unlock(ctx context.Context) error {
	c.line.leave(c.place)
	gone := []clientv3.Op{clientv3.OpDelete(c.place.key)}
	if c.session.commits > 1 {
		gone = append(gone, clientv3.OpDelete(c.slot))
	}
	_, err := c.session.client.Txn(ctx).Then(gone...).Commit()
	return err
}
